"""A made dataset, a made codec and a small config for the tests of this package."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prep.codecs import CodecIdentity, State
from shards import Example, set_current, write_index, write_shard
from train import config

DIM = 4
RATE = 44100
HOP = 4096
LEVELS_A_FRAME = 50 * HOP / RATE
CLASSES = ["Piano", "Bass", "Percussive"]


@dataclass(frozen=True)
class LinearCodec:
    """Each frame of samples times an orthonormal basis, and back: causal, exact on its own output, without state."""

    identity: CodecIdentity = field(
        default_factory=lambda: CodecIdentity("made", "a", "w", "float32", RATE, 2, HOP, DIM, True, 0)
    )

    @property
    def basis(self) -> Tensor:
        samples = torch.arange(HOP)[:, None] + 0.5
        cosines = torch.cos(torch.pi * samples * torch.arange(DIM)[None] / HOP)
        return cosines / cosines.norm(dim=0)

    def encode(self, audio: Tensor) -> Tensor:
        frames = -(-audio.shape[-1] // HOP)
        padded = torch.nn.functional.pad(audio, (0, frames * HOP - audio.shape[-1]))
        return padded.mean(dim=1).unflatten(-1, (frames, HOP)) @ self.basis

    def decode(self, latents: Tensor) -> Tensor:
        return (latents @ self.basis.T).flatten(1)[:, None].repeat(1, 2, 1)

    def encode_state(self, batch: int) -> State:
        return ()

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        return self.encode(audio), state

    def decode_state(self, batch: int) -> State:
        return ()

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        return self.decode(latents), state


def identity_json(**changes: Any) -> dict[str, Any]:
    return {**LinearCodec().identity.to_json(), **changes}


def example(
    name: str,
    stems: int = 3,
    members: tuple[tuple[int, ...], ...] = (),
    frames: int = 40,
    split: str = "train",
    levels: np.ndarray | None = None,
) -> Example:
    """`members` are the mixes'. Every latent tells who it is: channels are stream, frame, noise, constant."""
    rows, count = stems + len(members), int(np.ceil(frames * LEVELS_A_FRAME))
    latents = np.zeros((rows, frames, DIM))
    latents[..., 0] = np.arange(rows)[:, None]
    latents[..., 1] = np.arange(frames)
    latents[..., 2] = np.random.default_rng(sum(name.encode())).normal(size=(rows, frames))
    meta = {
        "id": name,
        "original": name,
        "augmentation": "{}",
        "split": split,
        "corpus": "made",
        "licence": "CC0",
        "n_stems": stems,
        "n_mixes": len(members),
        "frames": frames,
        "samples": frames * HOP,
        "levels_frames": count,
        "stems": [f"S{i:02d}" for i in range(stems)],
        "programs": list(range(stems)),
        "instruments": [CLASSES[i % len(CLASSES)] for i in range(stems)],
        "members": [[i] for i in range(stems)] + [list(row) for row in members],
        "gains_db": [0.0] * rows,
        "loudness_lufs": [-18.0] * rows,
    }
    levels = np.full((rows, count), -20.0) if levels is None else levels
    sixteen = latents.astype(np.float16)
    streams = tuple(f"{name}-{row}" for row in range(rows))
    return Example(name, meta, sixteen[:stems], sixteen[stems:], levels.astype(np.float16), {}, streams, streams)


def allowed(rows: Any = (), **changes: list[str]) -> dict[str, Any]:
    """dataset.json's `pairs`: all classes, and sizes up to 7 alike unless their probabilities are given."""
    alike = [[1 / size] * size for size in range(1, 8)]
    return {"exclude_targets": [], "exclude_contexts": [], "size_probabilities": rows or alike, **changes}


def write(out: Path, examples: list[Example], generation: str = "p0-c0", **header: Any) -> Path:
    """OUT with a live generation that holds `examples` in one shard a split."""
    folder = out / "generations" / generation
    folder.mkdir(parents=True)
    splits: dict[str, list[str]] = {}
    for split in dict.fromkeys(item.meta["split"] for item in examples):
        name = f"{split}-000000.tar"
        write_shard(folder / name, [item for item in examples if item.meta["split"] == split], {"machine": "made"})
        splits[split] = [name]
    plain = {"generation": generation, "plan": "p0", "codec": identity_json(), "latent_dtype": "float16"}
    plain |= {"levels_rate_hz": 50.0, "classes": CLASSES, "config": {}, "counts": {}, "pairs": allowed()}
    write_index(folder, {**plain, **header}, splits)
    set_current(out, generation)
    return out


def songs(out: Path) -> Path:
    """A dataset on which a few steps of training can be run."""
    return write(out, [example(f"song{number}", members=((0, 1), (1, 2), (0, 2))) for number in range(3)])


def small(**sections: dict[str, Any]) -> config.Config:
    """Networks of some thousand parameters, crops of 8 frames."""
    values: dict[str, dict[str, Any]] = {
        "batches": {"crop_frames": 8, "batch_size": 2, "start_share": 0.0},
        "generator": {"width": 16, "blocks": 2, "heads": 2, "noise_dim": 3, "context_frames": 6},
        "discriminator": {"width": 8, "groups": 4, "blocks_per_level": 1, "levels": 3},
        "optimiser": {"warmup_steps": 2, "penalty_every": 2},
        "loop": {"steps": 4, "checkpoint_every": 2},
    }
    merged = {name: {**values.get(name, {}), **sections.get(name, {})} for name in {**values, **sections}}
    return config.parse(merged, "made")


def settings(tmp: Path, values: config.Config) -> Path:
    """The config as a YAML file (JSON is YAML)."""
    path = tmp / "config.yaml"
    path.write_text(values.model_dump_json())
    return path
