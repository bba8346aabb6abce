"""Opens a generation and hands out its examples as arrays over memory maps.

Opening reads dataset.json and looks at each tar's size. A receipt is read, and held to its digest in dataset.json, when
its shard is first touched; each 64 KiB block to its digest in the receipt, when it is first touched in this process.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.generations import AGAIN, live
from shards.index import listed_in, unseal
from shards.order import Order, Shuffle
from shards.place import Folder, Place
from shards.record import Record
from shards.shard import Shard
from shards.windows import Windows

# Of examples that were touched, in memory: their json as Python has it, some 20 KB each
_MOST_RECORDS = 4096


@dataclass(frozen=True)
class Moments:
    """`mean` and `std`, float32 (D,), over `frames` latent frames; std is 1 where a channel never changes."""

    frames: int
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """The examples of a generation, or of one split of it: `len(dataset)`, `dataset[i]`, `for record in dataset`.

    `index` is dataset.json. Examples stand in the order of its splits, their shards and the receipts.
    """

    place: Place
    index: dict[str, Any]
    shards: tuple[Shard, ...]

    def __repr__(self) -> str:
        return f"<Dataset {self.place}: {len(self)} examples in {len(self.shards)} shards>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.place, self.index, self.shards)  # without the records at hand

    @property
    def codec(self) -> dict[str, Any]:
        return self.index["codec"]

    @property
    def classes(self) -> list[str]:
        return self.index["classes"]

    @property
    def splits(self) -> dict[str, Any]:
        return self.index["splits"]

    @property
    def statistics(self) -> dict[str, Any]:
        return self.index["statistics"]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for shard in self.shards for entry in shard.receipt.examples)

    @cached_property
    def _records(self) -> dict[int, Record]:
        return {}

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.examples for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> Record:
        """Raises IndexError out of range (negative `i` counts from the end), ShardError for a shard that is damaged."""
        record = self._records.get(i)
        return record or self._found(i + len(self) if i < 0 else i)

    def _found(self, i: int) -> Record:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.place} has {len(self)} examples")
        at = bisect_right(self._ends, i)
        shard = self.shards[at]
        record = Record(shard, shard.receipt.examples[i - self._ends[at] + shard.examples])
        if len(self._records) >= _MOST_RECORDS:
            self._records.clear()
        self._records[i] = record
        return record

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def split(self, name: str) -> "Dataset":
        """The examples of one split. Raises ShardError where there is no such split."""
        if name not in self.splits:
            raise ShardError(f"{self.place} has no split {name!r}; it has {', '.join(self.splits) or 'none'}")
        names = {listed["name"] for listed in self.splits[name]["shards"]}
        return Dataset(self.place, self.index, tuple(shard for shard in self.shards if shard.listed.name in names))

    def order(self, counts: Sequence[int] | None = None) -> Order:
        """For a Loader whose index runs over the examples, `counts[i]` (else 1) indices for the i-th of them.

        A global shuffle where the cache holds all of the dataset, also what is not of this split; else windows of as
        many shards as a third of it holds, while the next window is being fetched. That the cache is this dataset's
        alone is taken for granted. Raises ShardError where a third does not hold one shard, or the disk not the cache.
        """
        counts = [1] * len(self) if counts is None else [int(count) for count in counts]
        if len(counts) != len(self):
            raise ShardError(f"order: {len(counts)} counts for {len(self)} examples; give one for each")
        room = self.place.room(sum(item.bytes for item in listed_in(self.index)))
        if room is None:
            return Shuffle(sum(counts))
        # A batch may end in one window and begin in the next, while the one after is fetched
        largest = max((shard.listed.bytes for shard in self.shards), default=1)
        window = room // 3 // largest
        if not window:
            raise ShardError(
                f"{self.place}: the cache holds {room / 1e9:.3g} GB, and three of its shards may have "
                f"{3 * largest / 1e9:.3g} GB; raise cache_gb"
            )
        ends = [0, *accumulate(counts)]
        a_shard = [
            ends[last] - ends[last - shard.examples] for last, shard in zip(self._ends, self.shards, strict=True)
        ]
        return Windows(a_shard, window, lambda numbers: self.place.fetch([self.shards[n].listed for n in numbers]))

    def moments(self, role: str, split: str = "train") -> Moments:
        """Of role "stem" or "mix" in `split`, this dataset's own or not: all are normalised by the training split's.

        Raises ShardError where that split has no such frames.
        """
        found = self.statistics.get(split, {}).get(role, {"frames": 0})
        if not found["frames"]:
            raise ShardError(
                f"{self.place} has no {role} frames in split {split!r}, so no statistics; build it with some"
            )
        mean, std = np.array(found["mean"], dtype=np.float32), np.array(found["std"], dtype=np.float32)
        return Moments(found["frames"], mean, np.where(std > 0, std, np.float32(1)))


def open(path: Path | str, *, verify: bool = True, cache: Path | str | None = None, cache_gb: float = 100.0) -> Dataset:
    """The dataset in a generation's folder, or in the live generation of an `OUT` folder (its file `current`).

    `path` may be an address, such as https://… or s3://bucket/…: a shard is copied into the folder `cache` (else
    $GREENROOM_CACHE, else ~/.cache/greenroom) when it is first touched, and is held to its receipt on the way. The
    folder serves any number of datasets and processes, and keeps to `cache_gb` (of 10^9 bytes) by dropping what was
    opened longest ago. Keys for s3 are AWS's usual environment and files. Both are of no matter to a local path.
    With `verify`, no byte is handed out that is not what the receipt says.
    Raises ShardError for what is missing, is no dataset, or is an unfinished or damaged one.
    """
    place, data = _generation(_place(path, cache, cache_gb))
    index = unseal(data, f"{place}/dataset.json")
    listed = listed_in(index)
    place.check(listed)
    return Dataset(place, index, tuple(Shard(place, item, verify) for item in listed))


def _place(path: Path | str, cache: Path | str | None, cache_gb: float) -> Place:
    if isinstance(path, str) and "://" in path:
        # Not above: it takes a third of a second, and is of Unix alone
        from shards.remote import remote

        return remote(path, cache, cache_gb)
    folder = Path(os.path.expanduser(path)).absolute()  # a shard is opened when it is touched, wherever one is then
    if not os.path.isdir(folder):
        told = ", or an address as text, with its //" if re.match(r"[a-z0-9]+:/", str(path)) else ""
        raise ShardError(f"{path} is not a folder; give the --out of a `prep build`, or one of its generations{told}")
    return Folder(folder)


def _generation(place: Place) -> tuple[Place, bytes]:
    """Where the shards are, and dataset.json."""
    data = place.read("dataset.json")
    if data is not None:
        return place, data
    name = place.read("current")
    if name is not None:
        folder = place.below("generations").below(live(name, f"{place}/current"))
        data = folder.read("dataset.json")
        if data is not None:
            return folder, data
        raise ShardError(f"{place}/current names {folder}, which is missing or not complete; {AGAIN}")
    raise ShardError(place.no_dataset())
