"""The run folder: config.yaml, checkpoint.pt, kept/ and metrics.jsonl; written whole or not at all, never mixed up."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from shards.generations import atomic
from train.batches import Scale
from train.config import Config, Loop, difference, parse
from train.errors import ConfigError, RunError
from train.generator import Generator

FORMAT = 1
# what of a codec must agree, for latents of the one to mean anything to a network trained on the other
IDENTITY = ("name", "weights", "dim", "hop", "sample_rate", "channels")


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on, and all that playing needs, after `step` finished steps.

    The loader's state is all there is of random state: draws are keyed by their place, and networks draw nothing.
    """

    step: int
    config: Config
    codec: dict[str, Any]  # the dataset's codec identity
    generation: str  # the dataset's
    classes: tuple[str, ...]
    targets: dict[str, int]  # pairs a class: what the generator was asked to play
    mix_scale: Scale
    target_scale: Scale
    gamma: float
    loader: dict[str, int | str]  # the loader's state_dict
    generator: dict[str, Tensor]
    average: dict[str, Tensor]  # the generator's, over the last steps; what plays
    discriminator: dict[str, Tensor]
    generator_optimiser: dict[str, Any]
    discriminator_optimiser: dict[str, Any]

    def player(self) -> Generator:
        """The generator, ready to play."""
        c = self.config
        network = Generator(c.generator, self.codec["dim"], len(self.classes), c.batches.condition_dim)
        network.load_state_dict(self.average)
        return network.eval().requires_grad_(False)


def save(checkpoint: Checkpoint, run: Path) -> None:
    """Replace RUN/checkpoint.pt in one go: a crash leaves the old one or the new one. Then RUN/kept, as `loop` says."""
    values = {
        **vars(checkpoint),
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.model_dump()),
        "mix_scale": vars(checkpoint.mix_scale),
        "target_scale": vars(checkpoint.target_scale),
    }
    try:
        with atomic(run / "checkpoint.pt") as file:
            torch.save(values, file)
    except (OSError, RuntimeError) as error:  # torch's own, where not a byte of it could be written
        raise RunError(
            f"{run}/checkpoint.pt cannot be written ({str(error).splitlines()[0]}): is the disk full? What was there "
            "is as it was; make room, and run the same command again"
        ) from None
    if checkpoint.config.loop.keep_last > 1 or checkpoint.config.loop.keep_every:
        _keep(run, checkpoint.step, checkpoint.config.loop)


def _keep(run: Path, step: int, c: Loop) -> None:
    """checkpoint.pt as RUN/kept/STEP.pt too; of the earlier ones there, those stay that are to be kept."""
    kept = run / "kept"
    kept.mkdir(exist_ok=True)
    named = kept / f"{step:08d}.pt"
    named.unlink(missing_ok=True)
    try:
        named.hardlink_to(run / "checkpoint.pt")  # at no cost: the next one is renamed into its place
    except OSError:  # not on every disk
        with atomic(named) as copy, (run / "checkpoint.pt").open("rb") as original:
            shutil.copyfileobj(original, copy)
    steps = sorted(int(path.stem) for path in kept.glob("[0-9]*.pt") if int(path.stem) <= step)
    for old in steps[: -c.keep_last]:
        if not c.keep_every or old % c.keep_every:
            (kept / f"{old:08d}.pt").unlink()


def load(run: Path, device: str = "cpu") -> Checkpoint:
    """The run's checkpoint, or of a file that was kept. Raises RunError where there is none, or not a whole one."""
    path = run if run.is_file() else run / "checkpoint.pt"
    if not path.is_file():
        raise RunError(f"{run} has no checkpoint.pt; `train fit CONFIG --data O --run {run}` makes one")
    try:
        values = torch.load(path, map_location=device, weights_only=True)
        if values.pop("format") != FORMAT:
            raise RunError(f"{path} is of another format than {FORMAT}; train again with this greenroom")
        scales = {name: Scale(**values[name]) for name in ("mix_scale", "target_scale")}
        return Checkpoint(**{**values, **scales, "config": parse(json.loads(values["config"]), str(path))})
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error).split("\n")[0][:120]
        raise RunError(f"{path} cannot be read ({reason}); delete it and train again, or restore a copy") from None
    except ConfigError as error:
        raise RunError(f"{path} was written by another greenroom: {error}") from None


def resume(run: Path, config: Config, codec: dict[str, Any], generation: str, writes: bool = True) -> Checkpoint | None:
    """Make (if this process `writes`) or re-enter the run folder: its checkpoint if it has one. Raises RunError for a
    run of other settings.

    Only how long to go on may change (`loop.*`); the learning rate has no schedule that depends on it.
    """
    saved = load(run) if (run / "checkpoint.pt").exists() else None
    if saved:
        free = tuple(f"loop.{name}" for name in type(config.loop).model_fields)
        if changes := difference(saved.config, config, ignore=free):
            raise RunError(f"{run} is a run of another config: {'; '.join(changes)}; choose another --run")
        check_codec(saved, codec, "the dataset")
        if saved.generation != generation:
            raise RunError(
                f"{run} was trained on generation {saved.generation}, and the dataset is {generation}; "
                "choose another --run"
            )
    if writes:
        _make(run, config)
    return saved


def _make(run: Path, config: Config) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run} cannot be made a folder ({error.strerror}); choose another --run") from None
    for part in run.glob(".checkpoint.pt.*.part"):  # of a run that was killed while it wrote: as large as a checkpoint
        part.unlink(missing_ok=True)
    values = json.loads(json.dumps(config.model_dump()))  # plain lists, no tuples
    (run / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def check_codec(saved: Checkpoint, codec: dict[str, Any], whose: str) -> None:
    """Raises RunError, naming what differs, unless latents of `codec` are what the checkpoint was trained on."""
    differ = [key for key in IDENTITY if saved.codec[key] != codec[key]]
    if differ:
        raise RunError(
            f"{whose}'s codec is not the one that the checkpoint was trained on: "
            f"{'; '.join(f'{key} {codec[key]} here, {saved.codec[key]} there' for key in differ)}; "
            "use the codec of the training data, or train again"
        )
