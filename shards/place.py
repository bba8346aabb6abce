"""Where the files of a dataset lie: a folder here; `remote.py` has those at an address, copied to a cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, cast

from shards.errors import ShardError
from shards.generations import AGAIN

# No receipt and no dataset.json comes near it; whatever does is not read into memory
MOST_BYTES = 1 << 28
SHARD = re.compile(r"([a-z0-9_-]{1,80})-[0-9]{6}\.tar")  # no name that climbs out of its folder
_SHA256 = re.compile(r"[0-9a-f]{128}")  # two of them


@dataclass(frozen=True)
class Listed:
    """What dataset.json says of a shard."""

    name: str
    bytes: int
    sha256: str
    receipt_sha256: str
    examples: int

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError."""
        found = cls(*(value[field.name] for field in fields(cls)))
        named = SHARD.fullmatch(found.name) and _SHA256.fullmatch(found.sha256 + found.receipt_sha256)
        counted = type(found.bytes) is type(found.examples) is int and 0 < found.examples < found.bytes
        if not named or not counted:
            raise ValueError(f"shard {found.name[:60]!r}")
        return found


class Place(Protocol):
    """A folder of a dataset, wherever it lies; str() names it in messages. All raise ShardError for what goes wrong."""

    def room(self, wanted: int) -> int | None:
        """How many bytes of tars can be at hand at once; None where these are that are `wanted`."""

    def below(self, folder: str) -> Place: ...

    def read(self, name: str, sha256: str = "") -> bytes | None:
        """A small file, or None where there is none. Where its digest is given, a copy from earlier may be taken."""

    def check(self, listed: Sequence[Listed]) -> None:
        """Refuses what can be seen to be amiss without reading a shard."""

    def open(self, listed: Listed) -> BinaryIO:
        """The shard's tar, on this machine's disk."""

    def fetch(self, listed: Sequence[Listed]) -> None:
        """Begins to bring these shards here, and returns at once."""

    def holds(self, listed: Listed, inode: int) -> bool:
        """Whether the tar that `open` gave is still kept; whoever maps it lets go of it where it is not."""

    def mend(self, listed: Listed) -> bool:
        """Puts right what differs from the receipt, in the very file that `open` gives; False where that cannot be."""

    def no_dataset(self) -> str:
        """What is here in a dataset's stead, and what to do."""


@dataclass(frozen=True)
class Folder:
    """A folder on this machine's disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def room(self, wanted: int) -> int | None:
        return None

    def below(self, folder: str) -> Folder:
        return Folder(self.path / folder)

    def read(self, name: str, sha256: str = "") -> bytes | None:
        path = self.path / name
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ShardError(f"{path} has more than {MOST_BYTES >> 20} MiB, which no such file has; {AGAIN}")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ShardError(f"{path} cannot be read ({error.strerror}); copy it again or {AGAIN}") from None

    def check(self, listed: Sequence[Listed]) -> None:
        for shard in listed:
            self._tar(shard)

    def open(self, listed: Listed) -> BinaryIO:
        path = self._tar(listed)
        try:
            return cast(BinaryIO, path.open("rb"))
        except OSError as error:
            raise ShardError(f"{path} cannot be read ({error.strerror}); copy it again or {AGAIN}") from None

    def fetch(self, listed: Sequence[Listed]) -> None:
        pass

    def holds(self, listed: Listed, inode: int) -> bool:
        return True

    def mend(self, listed: Listed) -> bool:
        return False

    def no_dataset(self) -> str:
        if (self.path / "generations").is_dir() or any(self.path.glob("*-[0-9]*.tar")):
            return f"{self} holds a build that did not end (no dataset.json); {AGAIN}"
        return f"{self} is not a dataset (no `current`, no dataset.json); give the --out of a `prep build`"

    def _tar(self, listed: Listed) -> Path:
        path = self.path / listed.name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise ShardError(f"{path} cannot be read ({error.strerror}); copy it again or {AGAIN}") from None
        if found != listed.bytes:
            raise ShardError(
                f"{path} has {found} bytes, its receipt says {listed.bytes} (cut short or changed); "
                f"copy it again, or delete it and {AGAIN}"
            )
        return path
