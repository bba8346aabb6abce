"""Made examples and datasets for the tests of this package."""

from pathlib import Path
from typing import Any

import numpy as np

from shards import Example, set_current, shard_names, write_index, write_shard

DIM = 8
HEADER: dict[str, Any] = {
    "generation": "p0-c0",
    "plan": "p0",
    "codec": {"name": "made", "dim": DIM, "hop": 4096},
    "latent_dtype": "float16",
    "levels_rate_hz": 50.0,
    "classes": ["Piano", "Bass"],
    "config": {},
    "counts": {},
}


def example(name: str, stems: int = 3, mixes: int = 2, frames: int = 12, split: str = "train") -> Example:
    rng = np.random.default_rng(sum(name.encode()))
    rows, levels = stems + mixes, 5 * frames
    meta = {
        "id": name,
        "original": name,
        "augmentation": "{}",
        "split": split,
        "corpus": "made",
        "licence": "CC0",
        "n_stems": stems,
        "n_mixes": mixes,
        "frames": frames,
        "samples": frames * 4096,
        "levels_frames": levels,
        "stems": [f"S{i:02d}" for i in range(stems)],
        "programs": list(range(stems)),
        "instruments": ["Piano"] * stems,
        "members": [[i] for i in range(stems)] + [[0, 1]] * mixes,
        "gains_db": [0.0] * stems + [1.5] * mixes,
        "loudness_lufs": [-18.0] * rows,
    }
    latents = rng.normal(0.5, 2.0, (rows, frames, DIM)).astype(np.float16)
    decibels = rng.uniform(-120, 0, (rows, levels)).astype(np.float16)
    sources = {f"S{i:02d}": f"digest-{i}" for i in range(stems)}
    streams, audio = (tuple(f"{what}-{i}" for i in range(rows)) for what in ("stream", "audio"))
    return Example(name, meta, latents[:stems], latents[stems:], decibels, sources, streams, audio)


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """What a loader's draw is given, made from nothing."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, index, epoch]))


def dataset(out: Path) -> list[Example]:
    """OUT with a live generation of two train shards and one test shard; returns the examples in its order."""
    folder = out / "generations" / HEADER["generation"]
    folder.mkdir(parents=True)
    written = {
        "train-000000.tar": [example("a-0"), example("a-1", mixes=0, frames=7), example("a-2", stems=2)],
        "train-000001.tar": [example("b_0", stems=5, mixes=4, frames=20)],
        "test-000000.tar": [example("c0", split="test"), example("c1", mixes=0, split="test")],
    }
    for name, examples in written.items():
        write_shard(folder / name, examples, {"machine": "made"})
    write_index(folder, HEADER, {"train": shard_names("train", 2), "validation": [], "test": shard_names("test", 1)})
    set_current(out, HEADER["generation"])
    return [item for examples in written.values() for item in examples]
