"""The benchmark's data: made streams, written as shards and converted to the peers' own formats.

The latents are random but for their first four channels, which say where a frame belongs: its example, its row (stems
first, then mixes), and its number in two digits to base 64. So whether a batch is what it should be can be read off it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shards

BATCH, CROP, DIM = 128, 128, 128
FRAME_BYTES = 2 * DIM
PAIR_BYTES = 2 * CROP * FRAME_BYTES
SHARD_BYTES = 256_000_000
# litData keeps four chunks mapped: at the first size that is the whole dataset, the second is litData's default
LITDATA = {"litdata": 512_000_000, "litdata-64mb": 64_000_000}
DIGIT = 64

Batch = tuple[NDArray[np.float16], NDArray[np.float16]]


@dataclass(frozen=True)
class Size:
    """`examples` of `stems` + `mixes` streams of `frames` latent frames."""

    examples: int
    stems: int = 9
    mixes: int = 10
    frames: int = 2584  # 4 minutes at 44100 / 4096 Hz

    @property
    def rows(self) -> int:
        return self.stems + self.mixes

    @property
    def bytes(self) -> int:
        return self.examples * self.rows * self.frames * FRAME_BYTES

    @property
    def blocks(self) -> int:
        """Runs of CROP frames in a stream, the last one cut short."""
        return -(-self.frames // CROP)

    @classmethod
    def of(cls, folder: Path) -> Size:
        return cls(**json.loads((folder / "size.json").read_text()))


def latents(size: Size, number: int) -> NDArray[np.float16]:
    """(rows, frames, DIM) of one example."""
    rng = np.random.default_rng(number)
    made = rng.standard_normal((size.rows, size.frames, DIM), dtype=np.float32).astype(np.float16)
    made[..., 0] = number
    made[..., 1] = np.arange(size.rows)[:, None]
    made[..., 2:4] = np.stack(np.divmod(np.arange(size.frames), DIGIT), axis=-1)
    return made


def check(size: Size, batch: Batch) -> None:
    """Raises AssertionError unless each pair is a mix and a stem of one example, cut alike."""
    mix, target = (np.asarray(part) for part in batch)
    assert mix.shape == target.shape == (BATCH, CROP, DIM), (mix.shape, target.shape)
    assert mix.dtype == target.dtype == np.float16, (mix.dtype, target.dtype)
    frames = mix[..., 2].astype(int) * DIGIT + mix[..., 3].astype(int)
    assert (np.diff(frames, axis=1) == 1).all() and len(np.unique(frames[:, 0])) > 1
    assert (mix[..., 2:4] == target[..., 2:4]).all() and (mix[..., 0] == target[..., 0]).all()
    for part, low, high in ((mix, size.stems, size.rows), (target, 0, size.stems)):
        assert (part[:, :1, :2] == part[..., :2]).all()
        assert ((low <= part[:, 0, 1]) & (part[:, 0, 1] < high)).all()


def example(size: Size, number: int) -> shards.Example:
    made, name = latents(size, number), f"song-{number:05d}"
    levels = 5 * size.frames
    meta = {
        "id": name,
        "original": name,
        "augmentation": "{}",
        "split": "train",
        "corpus": "made",
        "licence": "CC0",
        "n_stems": size.stems,
        "n_mixes": size.mixes,
        "frames": size.frames,
        "samples": size.frames * 4096,
        "levels_frames": levels,
        "stems": [f"S{i:02d}" for i in range(size.stems)],
        "programs": [0] * size.stems,
        "instruments": ["Piano"] * size.stems,
        "members": [[i] for i in range(size.stems)] + [[0, 1]] * size.mixes,
        "gains_db": [0.0] * size.rows,
        "loudness_lufs": [-18.0] * size.rows,
    }
    stems, mixes = made[: size.stems], made[size.stems :]
    streams = tuple(f"{number}-{row}" for row in range(size.rows))
    return shards.Example(name, meta, stems, mixes, np.zeros((size.rows, levels), np.float16), {}, streams, streams)


def header(dim: int = DIM) -> dict[str, Any]:
    return {
        "generation": "made",
        "plan": "made",
        "codec": {"name": "made", "dim": dim, "hop": 4096, "frame_rate": 44100 / 4096},
        "latent_dtype": "float16",
        "levels_rate_hz": 50.0,
        "classes": ["Piano"],
        "config": {},
        "counts": {},
    }


def make(folder: Path, size: Size) -> None:
    """All formats under `folder`, unless they are there already."""
    wanted = json.dumps(asdict(size))
    if (folder / "size.json").exists():
        if (folder / "size.json").read_text() != wanted:
            raise SystemExit(f"{folder} holds data of another size; delete it, or name another folder with --data")
        return
    shutil.rmtree(folder, ignore_errors=True)  # what a run that was broken off left
    for write in (write_ours, _write_litdata, _write_mosaicml):
        print(f"{folder}: {write.__name__}", flush=True)
        write(folder, size)
    (folder / "size.json").write_text(wanted)


def write_ours(folder: Path, size: Size) -> None:
    out = folder / "ours"
    out.mkdir(parents=True)
    a_shard = max(1, SHARD_BYTES * size.examples // size.bytes)
    firsts = range(0, size.examples, a_shard)
    names = shards.shard_names("train", len(firsts))
    for name, first in zip(names, firsts, strict=True):
        numbers = range(first, min(first + a_shard, size.examples))
        shards.write_shard(out / name, (example(size, number) for number in numbers), {})
    shards.write_index(out, header(), {"train": names})


def streams(size: Size, number: int) -> Iterator[dict[str, NDArray[np.float16]]]:
    """A peer's items: each stream of an example."""
    for stream in latents(size, number):
        yield {"latents": np.ascontiguousarray(stream)}


def _write_litdata(folder: Path, size: Size) -> None:
    from litdata import TemporalArrayLoader, optimize

    for name, chunk_bytes in LITDATA.items():
        optimize(
            fn=partial(streams, size),
            inputs=list(range(size.examples)),
            output_dir=str(folder / name),
            item_loader=TemporalArrayLoader(),
            chunk_bytes=chunk_bytes,
            num_workers=1,
        )


def _write_mosaicml(folder: Path, size: Size) -> None:
    """Items of CROP frames; the last one of a stream holds what is left, and zeros."""
    from streaming import MDSWriter

    columns = {"latents": f"ndarray:float16:{CROP},{DIM}"}
    with MDSWriter(out=str(folder / "mosaicml"), columns=columns, size_limit=SHARD_BYTES) as out:
        for number in range(size.examples):
            for stream in latents(size, number):
                whole = np.zeros((size.blocks * CROP, DIM), np.float16)
                whole[: size.frames] = stream
                for block in whole.reshape(size.blocks, CROP, DIM):
                    out.write({"latents": block})
