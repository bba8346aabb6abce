"""One shard, opened when first touched, whose bytes are held to its receipt before anyone gets them."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import deque
from functools import cached_property
from typing import Any
from weakref import ReferenceType, ref

from shards.errors import ShardError
from shards.generations import AGAIN
from shards.place import Listed, Place
from shards.receipt import BLOCK_BYTES, Receipt, parse_receipt

# A memory map keeps its file open, and a process may have 1024 open
_MOST_OPEN = 512
# Its own operations are atomic; a lock might be held by another thread at a fork
_open: deque[ReferenceType[Shard]] = deque()


class Shard:
    """A tar and its receipt. With `verify`, each 64 KiB block is held to its digest once in this process."""

    def __init__(self, place: Place, listed: Listed, verify: bool = True) -> None:
        self.place, self.listed, self.examples = place, listed, listed.examples
        self._verify = verify
        self._map: mmap.mmap | None = None
        self._inode = 0
        self._sound = bytearray(-(-listed.bytes // BLOCK_BYTES))  # 1 for each block that may be handed out
        if not verify:
            self._sound = bytearray(b"\x01") * len(self._sound)

    def __str__(self) -> str:
        return f"{self.place}/{self.listed.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Shard, (self.place, self.listed, self._verify)  # opened anew by the process that gets it

    @cached_property
    def receipt(self) -> Receipt:
        """Raises ShardError unless it is the one that dataset.json lists."""
        name = f"{self.listed.name.removesuffix('.tar')}.json"
        where, data = f"{self.place}/{name}", self.place.read(name, self.listed.receipt_sha256)
        if data is None:
            raise ShardError(f"{where} is missing; copy it again or {AGAIN}")
        receipt = parse_receipt(data, where, self.listed.name)
        if hashlib.sha256(data).hexdigest() != self.listed.receipt_sha256 or (len(receipt.examples), receipt.bytes) != (
            self.examples,
            self.listed.bytes,
        ):
            raise ShardError(
                f"{where} is not the receipt that dataset.json lists; copy it again, or delete it and {AGAIN}"
            )
        return receipt

    @property
    def map(self) -> mmap.mmap:
        """All of the tar's bytes, held to nothing yet; see `check`."""
        return self._map or self._opened()

    def check(self, low: int, high: int) -> None:
        """Raises ShardError where a block that holds some of the bytes low … high - 1 is not what its receipt says."""
        first, last = low // BLOCK_BYTES, -(-high // BLOCK_BYTES)
        while (first := self._sound.find(0, first, last)) >= 0:
            if not self._right(first) and not (self.place.mend(self.listed) and self._right(first)):
                self.release()  # a cache may by now have another file of this name
                held = ", ".join(self.receipt.within(first)) or "the tar's end"
                raise ShardError(
                    f"{self}: block {first} is not what its receipt says, in {held}; "
                    "`prep verify` tells all that is damaged, with --repair it mends it"
                )
            self._sound[first] = 1

    def release(self) -> None:
        """Lets go of the file; it is opened again when it is next touched. What was handed out stays readable."""
        self._map = None

    def _right(self, block: int) -> bool:
        opened = self.map
        # To touch what was cut off since would end the process (SIGBUS)
        if opened.size() < self.listed.bytes:
            return False
        return self.receipt.right(block, memoryview(opened)[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])

    def _opened(self) -> mmap.mmap:
        try:
            with self.place.open(self.listed) as file:
                opened = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._inode = os.fstat(file.fileno()).st_ino
        except (OSError, ValueError) as error:
            raise ShardError(f"{self} cannot be read ({error}); copy it again or {AGAIN}") from None
        if len(opened) != self.listed.bytes:
            raise ShardError(f"{self} changed while it was opened; copy it again or {AGAIN}")
        self._map = opened
        _open.append(ref(self))
        if len(_open) > _MOST_OPEN and (oldest := _open.popleft()()):
            oldest.release()
        return opened

    @property
    def _left(self) -> bool:
        return self._map is not None and not self.place.holds(self.listed, self._inode)


def release_evicted() -> None:
    """Lets go of the shards whose files a cache has dropped: their room on disk is free when nobody maps them."""
    for reference in tuple(_open):
        if (shard := reference()) and shard._left:
            shard.release()
