"""Checks one shard's bytes against its receipt."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from shards.receipt import DIGEST_BYTES, digests, read_receipt


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
    for number, at in enumerate(range(0, min(len(blocks), len(receipt.blocks)), DIGEST_BYTES)):
        if blocks[at : at + DIGEST_BYTES] != receipt.blocks[at : at + DIGEST_BYTES]:
            yield f"{tar.name}: block {number} differs, in {', '.join(receipt.within(number)) or 'the padding'}"
    if size == receipt.bytes and blocks == receipt.blocks and sha256 != receipt.sha256:
        yield f"{tar.name}: the receipt's sha256 is not its blocks'"
