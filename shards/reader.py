"""Opens a generation and hands out its examples as arrays over a memory map.

Opening reads dataset.json and checks that every tar is there in its size. A receipt is read, and checked against the
digest in dataset.json, when its shard is first touched. Reading does not check the payload's digests yet
(`shards.verify.faults` does), but refuses a member whose .npy header is not where the receipt says.
"""

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.generations import AGAIN, current
from shards.index import HEADER
from shards.receipt import FORMAT, Entry, Receipt, load_json, load_receipt, npy_header


@dataclass(frozen=True)
class Moments:
    """`mean` and `std`, float32 (D,), over `frames` latent frames; std is 1 where a channel never changes."""

    frames: int
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Record:
    """One example. `record["stems"]`, `["mixes"]` and `["levels"]` are read-only float16 views of the file.

    No byte is read before it is sliced; copy (`.astype(np.float32)`) what is to be changed or handed to torch.
    """

    shard: "Shard"
    entry: Entry

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def sources(self) -> dict[str, str]:
        return self.entry.sources

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The example's json. Raises ShardError where the tar does not hold it."""
        offset, size = self.entry.members["json"]
        try:
            meta = json.loads(self.shard.map[offset : offset + size])
        except (ValueError, RecursionError):
            meta = None
        if not isinstance(meta, dict) or meta.get("id") != self.id:
            raise ShardError(f"{self.shard.path}: member {self.id}.json is not what its receipt says; {AGAIN}")
        return meta

    def __getitem__(self, name: str) -> np.ndarray:
        """(n, T, D) stems, (m, T, D) mixes or (n + m, T50) levels. Raises ShardError where the tar does not hold it."""
        member = f"{name}.npy"
        shape = self.entry.shapes[member]
        offset, size = self.entry.members[member]
        header = npy_header(shape)
        if self.shard.map[offset : offset + len(header)] != header:
            raise ShardError(f"{self.shard.path}: member {self.id}.{member} is not what its receipt says; {AGAIN}")
        flat = np.frombuffer(self.shard.map, "<f2", (size - len(header)) // 2, offset + len(header))
        return flat.reshape(shape)


class Shard:
    """One tar and its receipt, opened when first touched."""

    def __init__(self, path: Path, listed: dict[str, Any]) -> None:
        self.path = path
        self.examples = int(listed["examples"])
        self._bytes = int(listed["bytes"])
        self._receipt_sha256 = str(listed["receipt_sha256"])

    def check_size(self) -> None:
        """Raises ShardError where the tar is missing, or longer or shorter than dataset.json says."""
        try:
            found = self.path.stat().st_size
        except OSError as error:
            raise ShardError(f"{self.path} cannot be read ({error.strerror}); copy it again or {AGAIN}") from None
        if found != self._bytes:
            raise ShardError(
                f"{self.path} has {found} bytes, its receipt says {self._bytes} (cut short or changed); "
                f"copy it again, or delete it and {AGAIN}"
            )

    @cached_property
    def receipt(self) -> Receipt:
        receipt, digest = load_receipt(self.path)
        if digest != self._receipt_sha256 or len(receipt.examples) != self.examples:
            path = self.path.with_suffix(".json")
            raise ShardError(
                f"{path} is not the receipt that dataset.json lists; copy it again, or delete it and {AGAIN}"
            )
        return receipt

    @cached_property
    def map(self) -> mmap.mmap:
        self.check_size()
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True)
class Dataset:
    """The examples of a generation, or of one split of it: `len(dataset)`, `dataset[i]`, `for record in dataset`.

    `index` is dataset.json. Examples stand in the order of its splits, their shards and the receipts.
    """

    folder: Path
    index: dict[str, Any]
    shards: tuple[Shard, ...]

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
    def _ends(self) -> list[int]:
        return list(accumulate(shard.examples for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> Record:
        """Raises IndexError out of range (negative `i` counts from the end), ShardError for a shard that is damaged."""
        i += len(self) if i < 0 else 0
        if not 0 <= i < len(self):
            raise IndexError(f"{self.folder} has {len(self)} examples")
        at = bisect_right(self._ends, i)
        shard = self.shards[at]
        return Record(shard, shard.receipt.examples[i - self._ends[at] + shard.examples])

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def split(self, name: str) -> "Dataset":
        """The examples of one split. Raises ShardError where there is no such split."""
        if name not in self.splits:
            raise ShardError(f"{self.folder} has no split {name!r}; it has {', '.join(self.splits) or 'none'}")
        names = {listed["name"] for listed in self.splits[name]["shards"]}
        return Dataset(self.folder, self.index, tuple(shard for shard in self.shards if shard.path.name in names))

    def moments(self, role: str, split: str = "train") -> Moments:
        """Of role "stem" or "mix" in `split`, this dataset's own or not: all are normalised by the training split's.

        Raises ShardError where that split has no such frames.
        """
        found = self.statistics.get(split, {}).get(role, {"frames": 0})
        if not found["frames"]:
            raise ShardError(
                f"{self.folder} has no {role} frames in split {split!r}, so no statistics; build it with some"
            )
        mean, std = np.array(found["mean"], dtype=np.float32), np.array(found["std"], dtype=np.float32)
        return Moments(found["frames"], mean, np.where(std > 0, std, np.float32(1)))


def open(path: Path | str) -> Dataset:
    """The dataset in a generation's folder, or in the live generation of an `OUT` folder (its file `current`).

    Raises ShardError for a folder that is missing, is no dataset, or holds an unfinished or damaged one.
    """
    folder = _generation(Path(path))
    index, _ = load_json(folder / "dataset.json")
    if index.get("format", FORMAT) != FORMAT:
        raise ShardError(f"{folder} has format {index['format']}; this program reads {FORMAT}: update it, or {AGAIN}")
    missing = [key for key in ("format", *HEADER, "splits", "statistics") if key not in index]
    if missing:
        raise ShardError(f"{folder / 'dataset.json'} lacks {', '.join(missing)}; delete it and {AGAIN}")
    try:
        listed = [item for split in index["splits"].values() for item in split["shards"]]
        shards = tuple(Shard(folder / Path(item["name"]).name, item) for item in listed)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ShardError(f"{folder / 'dataset.json'} has no valid list of shards; delete it and {AGAIN}") from None
    for shard in shards:
        shard.check_size()
    return Dataset(folder, index, shards)


def _generation(path: Path) -> Path:
    if not path.is_dir():
        raise ShardError(f"{path} is not a folder; give the --out of a `prep build`, or one of its generations")
    if (path / "dataset.json").is_file():
        return path
    if (path / "current").is_file():
        folder = path / "generations" / current(path)
        if (folder / "dataset.json").is_file():
            return folder
        raise ShardError(f"{path / 'current'} names {folder.name}, which is missing or not complete; {AGAIN}")
    if (path / "generations").is_dir() or any(path.glob("*-[0-9]*.tar")):
        raise ShardError(f"{path} holds a build that did not end (no dataset.json); {AGAIN}")
    raise ShardError(f"{path} is not a dataset (no `current`, no dataset.json); give the --out of a `prep build`")
