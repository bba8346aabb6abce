"""One example, and its arrays, of which no byte is read before it is sliced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shards.errors import ShardError
from shards.generations import AGAIN
from shards.receipt import Entry, npy_header
from shards.shard import Shard

_F2 = np.dtype("<f2")
_ALL = slice(None)


class Record:
    """`record["stems"]`, `["mixes"]` and `["levels"]` are Members, `record.meta` is the example's json."""

    def __init__(self, shard: Shard, entry: Entry) -> None:
        self.shard, self.entry = shard, entry
        self._members: dict[str, Member] = {}

    def __repr__(self) -> str:
        return f"<Record {self.id} of {self.shard}>"

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def sources(self) -> dict[str, str]:
        return self.entry.sources

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Raises ShardError where the tar does not hold it."""
        offset, size = self.entry.members["json"]
        self.shard.check(offset, offset + size)
        try:
            meta = json.loads(self.shard.map[offset : offset + size])
        except (ValueError, RecursionError):
            meta = None
        if not isinstance(meta, dict) or meta.get("id") != self.id:
            raise ShardError(f"{self.shard}: member {self.id}.json is not what its receipt says; {AGAIN}")
        return meta

    def __getitem__(self, name: str) -> Member:
        """(n, T, D) stems, (m, T, D) mixes or (n + m, T50) levels. Raises KeyError for another name."""
        member = self._members.get(name)
        if member is None:
            if (file := f"{name}.npy") not in self.entry.shapes:
                raise KeyError(f"{name!r}; an example has stems, mixes and levels")
            shape = self.entry.shapes[file]
            offset = self.entry.members[file][0] + len(npy_header(shape))
            member = self._members[name] = Member(self.shard, offset, shape)
        return member


class Member:
    """A float16 array in a shard: `member[2, a:b]` is a read-only view of the file's memory map, and all that is read.

    What a slice touches is held to its digests first, in blocks of 64 KiB: raises ShardError where they differ. numpy
    takes it as an array (np.asarray); `member[:]` is all of it. Copy what is to be changed or handed to torch.
    """

    dtype = _F2

    def __init__(self, shard: Shard, offset: int, shape: tuple[int, ...]) -> None:
        self.shape, self.ndim = shape, len(shape)
        self._shard, self._offset = shard, offset
        self._row = _F2.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        self._step = _F2.itemsize * int(np.prod(shape[2:], dtype=np.int64))

    def __repr__(self) -> str:
        return f"<Member {self.shape} {self.dtype} of {self._shard}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self[:], dtype, copy=copy)

    def __getitem__(self, key: Any) -> Any:
        whole: NDArray[np.float16] = np.ndarray(self.shape, _F2, self._shard.map, self._offset)
        found = whole[key]
        # A row, and the crop that training draws a million times
        if type(key) is int:
            key = (key, _ALL)
        if type(key) is tuple and len(key) == 2 and type(key[0]) is int and type(key[1]) is slice:
            first, last, step = key[1].indices(self.shape[1])
            if step == 1:
                row = self._offset + (key[0] if key[0] >= 0 else key[0] + self.shape[0]) * self._row
                self._shard.check(row + first * self._step, row + last * self._step)
                return found
        # What numpy has copied may have come from anywhere
        view = found if isinstance(found, np.ndarray) and np.may_share_memory(found, whole) else whole
        start = self._offset - np.lib.array_utils.byte_bounds(whole)[0]
        for low, high in _runs(view):
            self._shard.check(start + low, start + high)
        return found


def _runs(view: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """The addresses that a view spans, run by run."""
    if view.ndim < 2 or view.flags.c_contiguous:
        yield np.lib.array_utils.byte_bounds(view)
    else:
        for part in view:
            yield from _runs(part)
