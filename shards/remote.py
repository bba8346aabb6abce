"""A dataset at an address (https://, s3:// and whatever else fsspec reads), copied to a cache shard by shard."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from shards.address import WAITS_S, Address, Missing, Refused
from shards.cache import Cache
from shards.errors import ShardError
from shards.place import MOST_BYTES, Listed
from shards.receipt import BLOCK_BYTES
from shards.shard import Shard

# Asked for at a time, and in memory: 8 MiB
_PIECE_BLOCKS = 128
# How often in turn an answer may bring no block that the receipt knows
_MOST_WRONG = 3
_THREADS = 4


def remote(url: str, cache: Path | str | None, cache_gb: float) -> Remote:
    """Raises ShardError for an address or a cache that cannot be."""
    if not cache_gb > 0:
        raise ShardError(f"cache_gb is {cache_gb}; it must be above 0, such as 100")
    folder = cache or os.environ.get("GREENROOM_CACHE") or "~/.cache/greenroom"
    return Remote(Address(url), Cache(Path(folder).expanduser().absolute(), int(min(cache_gb, 1e9) * 1e9)))


class Remote:
    """The Place of a dataset at an address. In the cache a shard is named after its receipt, which vouches for it."""

    def __init__(self, address: Address, cache: Cache) -> None:
        self.address, self.cache = address, cache
        self._refused: Refused | None = None
        self._waiting: deque[Listed] = deque()
        self._threads: list[threading.Thread] = []

    def __str__(self) -> str:
        return str(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.address, self.cache)  # threads stay where they are

    def room(self, wanted: int) -> int | None:
        room = self.cache.limit * 19 // 20  # the rest is for receipts
        if (there := self.cache.there()) < min(wanted, room):
            raise ShardError(
                f"{self.cache.folder}: its disk has room for {there / 1e9:.3g} GB of the {self.cache.limit / 1e9:g} "
                f"that cache_gb allows, and {self} has {wanted / 1e9:.3g}; lower cache_gb, or put the cache on another "
                "disk: cache=… or $GREENROOM_CACHE"
            )
        return None if wanted <= room else room

    def below(self, folder: str) -> Remote:
        return Remote(self.address.below(folder), self.cache)

    def read(self, name: str, sha256: str = "") -> bytes | None:
        kept = f"{sha256}.json"
        if sha256 and (found := self.cache.small(kept, sha256)) is not None:
            return found
        try:
            _, data = self.address.read(name, 0, MOST_BYTES, MOST_BYTES, WAITS_S if sha256 else WAITS_S[:2])
        except Missing:
            return None
        except Refused as refused:
            if sha256:
                raise
            self._refused = refused
            return None
        if len(data) == MOST_BYTES or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
            raise ShardError(f"{self}/{name} is not the file that belongs there; upload the dataset again")
        if sha256:
            self.cache.keep(kept, data)
        return data

    def check(self, listed: Sequence[Listed]) -> None:
        largest = max((shard.bytes for shard in listed), default=0)
        if largest > self.cache.limit:
            raise ShardError(
                f"{self} has a shard of {largest / 1e9:.3g} GB, which cache_gb={self.cache.limit / 1e9:g} cannot hold; "
                "give more, at best enough for all that is read"
            )

    def open(self, listed: Listed) -> BinaryIO:
        found = self._opened(listed, wait=True)
        assert found is not None
        return found

    def fetch(self, listed: Sequence[Listed]) -> None:
        missing = [shard for shard in listed if not self.cache.use(_kept(shard)) and shard not in self._waiting]
        self._waiting.extend(missing)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(min(len(missing), _THREADS - len(self._threads))):
            self._threads.append(threading.Thread(target=self._prefetch, daemon=True))
            self._threads[-1].start()

    def holds(self, listed: Listed, inode: int) -> bool:
        return self.cache.holds(_kept(listed), inode)

    def mend(self, listed: Listed) -> bool:
        self.cache.mend(_kept(listed), lambda file, fresh: self._fill(listed, file, fresh))
        return True

    def no_dataset(self) -> str:
        return str(
            self._refused
            or f"{self} is not a dataset (no `current`, no dataset.json there); give the address of what a "
            "`prep build` wrote to its --out, uploaded with all its files"
        )

    def _opened(self, listed: Listed, wait: bool) -> BinaryIO | None:
        return self.cache.open(_kept(listed), listed.bytes, lambda file, fresh: self._fill(listed, file, fresh), wait)

    def _prefetch(self) -> None:
        """What goes wrong here is met again, and told, by the one who touches the shard."""
        while True:
            try:
                shard = self._waiting.popleft()
            except IndexError:
                return
            with suppress(ShardError):
                file = self._opened(shard, wait=False)
                if file:
                    file.close()

    def _fill(self, listed: Listed, file: BinaryIO, fresh: bool) -> None:
        """Asks for the blocks that the file lacks; none is written that is not what the receipt says."""
        receipt, handle = Shard(self, listed).receipt, file.fileno()

        def has(block: int) -> bool:
            return receipt.right(block, memoryview(os.pread(handle, BLOCK_BYTES, block * BLOCK_BYTES)))

        def lands(block: int, start: int, data: bytes) -> bool:
            low = block * BLOCK_BYTES - start
            part = memoryview(data)[max(0, low) : max(0, low + BLOCK_BYTES)]
            right = low >= 0 and receipt.right(block, part)
            if right:
                os.pwrite(handle, part, start + low)
            return right

        lacks = [block for block in range(-(-listed.bytes // BLOCK_BYTES)) if fresh or not has(block)]
        wrong, start, data = 0, 0, b""
        while lacks and wrong < _MOST_WRONG:
            low, high = lacks[0] * BLOCK_BYTES, min(_run(lacks) * BLOCK_BYTES, listed.bytes)
            start, data = self.address.read(listed.name, low, high, listed.bytes, WAITS_S)
            left = [block for block in lacks if not lands(block, start, data)]
            wrong = wrong + 1 if len(left) == len(lacks) else 0
            lacks = left
        if lacks:
            raise ShardError(self._wrong(listed, lacks[0], receipt.within(lacks[0]), start + len(data)))

    def _wrong(self, listed: Listed, block: int, within: Sequence[str], end: int) -> str:
        where, held = f"{self}/{listed.name}", ", ".join(within) or "the tar's end"
        if end < min((block + 1) * BLOCK_BYTES, listed.bytes):
            return f"{where} ends after {end} bytes, dataset.json says {listed.bytes} (in {held}); upload it again"
        return f"{where}: block {block} is not what its receipt says, in {held}; upload it again"


def _kept(listed: Listed) -> str:
    return f"{listed.receipt_sha256}.tar"


def _run(blocks: Sequence[int]) -> int:
    """Where the run that the first of them begins ends, or a piece of it."""
    ahead = blocks[:_PIECE_BLOCKS]
    return next((blocks[0] + i for i, block in enumerate(ahead) if block != blocks[0] + i), ahead[-1] + 1)
