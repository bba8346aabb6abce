"""Checks one shard's bytes against its receipt."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from shards.receipt import BLOCK_BYTES, Receipt, digests, read_receipt


def faults(tar: Path) -> Iterator[str]:
    """A line for each fault: the shard, the 64 KiB block and the members in it. Reads all of the tar.

    Raises ShardError for a bad receipt, OSError where the tar cannot be read.
    """
    receipt = read_receipt(tar)
    if not receipt.examples:
        return
    with tar.open("rb") as file:
        size, sha256, blocks = digests(cast(BinaryIO, file))
    if size != receipt.bytes:
        yield f"{tar.name}: {size} bytes, its receipt says {receipt.bytes}"
    for number, (found, wanted) in enumerate(zip(blocks, receipt.blocks, strict=False)):
        if found != wanted:
            yield f"{tar.name}: block {number} differs, in {', '.join(_within(receipt, number)) or 'the padding'}"
    if size == receipt.bytes and blocks == receipt.blocks and sha256 != receipt.sha256:
        yield f"{tar.name}: the receipt's sha256 is not its blocks'"


def _within(receipt: Receipt, block: int) -> list[str]:
    start, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
    return [
        f"{entry.id}.{name}"
        for entry in receipt.examples
        for name, (offset, size) in entry.members.items()
        if offset - 512 < end and start < offset + size  # a member begins with its 512 bytes of tar header
    ]
