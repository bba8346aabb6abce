"""RUN/checkpoint.pt of the codec's training: all that it needs to go on, written whole or not at all.

No random state: crops and noise are keyed by the step.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prep.codecs import CausalConfig
from shards.generations import atomic
from train.codec.recipe import CodecRecipe
from train.errors import RunError

FORMAT = 1
FREE = ("steps", "save_every")  # settings that another start of the same run may change
APART = ("architecture",)  # told by the codec's own settings


@dataclass(frozen=True)
class Checkpoint:
    """After `step` finished steps."""

    step: int
    seconds: float  # that they took
    recipe: dict[str, Any]
    codec: dict[str, Any]  # the architecture's settings
    songs: str  # their digest
    model: dict[str, Tensor]
    average: dict[str, Any]
    optimizer: dict[str, Any]


def save(checkpoint: Checkpoint, run: Path) -> None:
    """Replace RUN/checkpoint.pt in one go."""
    texts = {name: json.dumps(getattr(checkpoint, name)) for name in ("recipe", "codec")}
    with atomic(run / "checkpoint.pt") as file:
        torch.save({**vars(checkpoint), **texts, "format": FORMAT}, file)


def load(run: Path) -> Checkpoint:
    """Raises RunError for a file that is cut short, or of another format."""
    path = run / "checkpoint.pt"
    try:
        values = torch.load(path, weights_only=True)
        if values.pop("format") != FORMAT:
            raise RunError(f"{path} is of another format than {FORMAT}. Choose another --run.")
        return Checkpoint(**{**values, **{name: json.loads(values[name]) for name in ("recipe", "codec")}})
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error).split("\n")[0][:120]
        raise RunError(f"{path} cannot be read ({reason}). Delete the run and train again.") from None


def resume(run: Path, recipe: CodecRecipe, config: CausalConfig, songs: str) -> Checkpoint | None:
    """The run's checkpoint, if it has one. Raises RunError for a run of other settings, codec or songs."""
    if not (run / "checkpoint.pt").exists():
        if (run / "causal.safetensors").exists():
            raise RunError(f"{run} holds weights and no checkpoint.pt to go on from. Choose another --run.")
        return None
    saved = load(run)
    changes = _changes(saved.recipe, recipe.model_dump(), FREE + APART) + _changes(saved.codec, asdict(config))
    if changes:
        raise RunError(f"{run} is a run of another recipe: {'; '.join(changes)}. Choose another --run.")
    if saved.songs != songs:
        raise RunError(f"{run} was trained on other songs than those of --data. Choose another --run.")
    return saved


def _changes(there: Mapping[str, Any], here: Mapping[str, Any], ignore: tuple[str, ...] = ()) -> list[str]:
    names = [name for name in {**here, **there} if name not in ignore]
    return [
        f"{name} is {there.get(name)} there and {here.get(name)} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
