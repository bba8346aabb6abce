"""Ours, and the ceiling: functions (folder, size) -> endless iterator of batches.

A batch is two float16 arrays (128, 128, dim), mix and target: of an example drawn by chance a mix, a stem and a start.
The caller may keep them: an array is used again only when nobody else holds it (`Pool`), by all contenders alike, since
memory that is new to the process costs twice as much as the copy into it.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import shards
from tests.bench.loading.made import BATCH, CROP, DIM, Batch, Size

SEED = 7


def _holders(arrays: Sequence[object]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


UNUSED = _holders([object()])[0]


class Pool:
    """Gives batches of arrays with any values in them."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float16]] = []

    def __call__(self) -> Batch:
        return self._array(), self._array()

    def _array(self) -> NDArray[np.float16]:
        for array, holders in zip(self._arrays, _holders(self._arrays), strict=True):
            if holders <= UNUSED:
                return array
        self._arrays.append(new_array())
        return self._arrays[-1]


def new_array() -> NDArray[np.float16]:
    return np.empty((BATCH, CROP, DIM), np.float16)


def new_batch() -> Batch:
    return new_array(), new_array()


def draw(size: Size, count: int, rng: np.random.Generator) -> list[list[int]]:
    """`count` rows of example, mix, stem, start."""
    high = [size.examples, size.mixes, size.stems, size.frames - CROP + 1]
    return rng.integers(0, high, (count, 4)).tolist()


def ceiling(folder: Path, size: Size, give: Callable[[], Batch]) -> Iterator[Batch]:
    """A bare memory map of each tar: nothing is checked, the draws are vectorised, no thread."""
    places = list(chain.from_iterable(map(_mapped, sorted((folder / "ours").glob("*.tar")))))
    rng = np.random.default_rng(SEED)
    while True:
        mixes, targets = give()
        for i, (number, mix, stem, start) in enumerate(draw(size, BATCH, rng)):
            stems_of, mixes_of = places[number]
            mixes[i] = mixes_of[mix, start : start + CROP]
            targets[i] = stems_of[stem, start : start + CROP]
        yield mixes, targets


def _mapped(path: Path) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float16]]]:
    whole = np.memmap(path, np.uint8, "r").view(np.ndarray)
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    for name in [name.removesuffix(".json") for name in members if name.endswith(".json")]:
        yield _array(whole, members[f"{name}.stems.npy"]), _array(whole, members[f"{name}.mixes.npy"])


def _array(whole: NDArray[np.uint8], member: tarfile.TarInfo) -> NDArray[np.float16]:
    data = whole[member.offset_data : member.offset_data + member.size]
    start = io.BytesIO(data[:256])
    np.lib.format.read_magic(start)
    shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    return data[start.tell() :].view(dtype).reshape(shape)


def ours(folder: Path, size: Size, verify: bool = True) -> Iterator[Batch]:
    """The index runs over (example, stem, CROP frames of starts), as in training."""
    dataset = shards.open(folder / "ours") if verify else shards.open(folder / "ours", verify=False)
    last, give = size.frames - CROP, Pool()

    def cut(index: int, rng: np.random.Generator) -> Batch:
        number, rest = divmod(index, size.stems * size.blocks)
        stem, block = divmod(rest, size.blocks)
        mix, start = int(rng.random() * size.mixes), min(block * CROP + int(rng.random() * CROP), last)
        record = dataset[number]
        return record["mixes"][mix, start : start + CROP], record["stems"][stem, start : start + CROP]

    def collate(pairs: list[Batch]) -> Batch:
        mixes, targets = give()
        for i, (mix, target) in enumerate(pairs):
            mixes[i] = mix
            targets[i] = target
        return mixes, targets

    return iter(shards.Loader(size.examples * size.stems * size.blocks, BATCH, cut, collate, SEED))
