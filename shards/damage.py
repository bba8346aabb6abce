"""What is amiss in one tar, told by its receipt: which members and streams, and in which blocks.

Where digests differ the tar's own headers are read, so that members that were swapped, moved, doubled or renamed are
told as that, and not as blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from shards.receipt import BLOCK_BYTES, DIGEST_BYTES, Entry, Receipt, npy_header

_MOST_LINES = 20  # of one shard
_HEADER_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Fault:
    """Something that is not what it was when it was written. str() tells it in one line.

    `shard` is the tar's name, or the file's where it is no shard's; `stream` the row of `member`, where it is one.
    `generation` is empty for the live one.
    """

    shard: str
    what: str
    member: str | None = None
    stream: int | None = None
    part: str = ""  # of the member, and what else may be meant, for a person
    generation: str = ""

    def __str__(self) -> str:
        where = f"generations/{self.generation}/{self.shard}" if self.generation else self.shard
        gap = "" if self.part[:1] in ("", ",") else " "
        member = f"{self.member}{gap}{self.part}" if self.member else ""
        return ": ".join(text for text in (where, member, self.what) if text)


@dataclass(frozen=True)
class _Member:
    """One member's place in the tar: its header from `start`, its data from `offset`, its padding up to `end`."""

    entry: Entry
    key: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.entry.id}.{self.key}"

    @property
    def start(self) -> int:
        return self.offset - _HEADER_BYTES

    @property
    def end(self) -> int:
        return self.offset + _padded(self.size)

    def rows(self, blocks: Iterable[int]) -> list[int]:
        """Which rows of an array lie in the blocks."""
        shape = self.entry.shapes.get(self.key, (0,))
        a_row = 2 * math.prod(shape[1:])
        if not shape[0] or not a_row:
            return []
        first = self.offset + len(npy_header(shape))
        found: set[int] = set()
        for block in blocks:
            low, high = block * BLOCK_BYTES - first, (block + 1) * BLOCK_BYTES - first
            found.update(range(max(0, low) // a_row, min(shape[0], -(-high // a_row))))
        return sorted(found)


def tar_faults(tar: Path, receipt: Receipt, seen: Callable[[int], None] = lambda count: None) -> list[Fault]:
    """All that is amiss, most telling first. Reads all of the tar, 64 KiB at a time; `seen` is told of each read.

    A tar that is missing or cannot be read is a fault as well.
    """
    try:
        with tar.open("rb") as opened:
            file = cast(BinaryIO, opened)
            found = _in_short(_faults(file, receipt, seen))
    except FileNotFoundError:
        found = [Fault(receipt.shard, "the tar is missing")]
    except OSError as error:
        found = [Fault(receipt.shard, f"the tar cannot be read ({error.strerror})")]
    return found


def _faults(file: BinaryIO, receipt: Receipt, seen: Callable[[int], None]) -> Iterator[Fault]:
    size, sha256, blocks = _read(file, receipt, seen)
    if size == receipt.bytes and not blocks:
        if sha256 != receipt.sha256:
            yield Fault(receipt.shard, "its sha256 is not the receipt's, though every block is")
        return
    members = sorted(
        (_Member(entry, key, *place) for entry in receipt.examples for key, place in entry.members.items()),
        key=lambda member: member.offset,
    )
    lost = [member for member in members if member.offset + member.size > size]
    if size != receipt.bytes:
        yield _another_size(receipt, size, lost)
    found = _headers(file, [*(member.start for member in members), receipt.bytes])
    moved = list(_moved(receipt.shard, members, lost, found))
    yield from moved
    told = {fault.member for fault in moved} | {member.name for member in lost}
    yield from _differing(file, receipt.shard, members, blocks, told)


def _read(file: BinaryIO, receipt: Receipt, seen: Callable[[int], None]) -> tuple[int, str, list[int]]:
    """The size, the sha256 of as many bytes as the receipt speaks of, and the blocks that differ."""
    differing: list[int] = []
    whole, at = hashlib.sha256(), 0
    for number, first in enumerate(range(0, len(receipt.blocks), DIGEST_BYTES)):
        length = min(BLOCK_BYTES, receipt.bytes - at)
        block = file.read(length)
        seen(length)
        if len(block) < length:
            return at + len(block), "", differing
        whole.update(block)
        if hashlib.sha256(block).digest()[:DIGEST_BYTES] != receipt.blocks[first : first + DIGEST_BYTES]:
            differing.append(number)
        at += length
    return os.fstat(file.fileno()).st_size, whole.hexdigest(), differing


def _another_size(receipt: Receipt, size: int, lost: Sequence[_Member]) -> Fault:
    if size > receipt.bytes:
        return Fault(receipt.shard, f"the tar has {size - receipt.bytes} bytes more than its receipt says")
    what = f"the tar is cut short, at byte {size} of {receipt.bytes}"
    if not lost:
        return Fault(receipt.shard, f"{what}; nothing but its empty end is lost")
    return Fault(receipt.shard, f"{what}; lost: {_names([member.name for member in lost])}", lost[0].name)


def _headers(file: BinaryIO, starts: Sequence[int]) -> dict[int, tuple[str, int]]:
    """(name, size) of what the tar says it holds, by offset: as its headers follow each other, and at `starts`."""
    found: dict[int, tuple[str, int]] = {}
    at, ahead = 0, iter(starts)
    while at >= 0:
        if header := _header(file, at):
            found[at + _HEADER_BYTES] = header
            at += _HEADER_BYTES + _padded(header[1])
        else:  # damaged, or an end
            at = next((start for start in ahead if start > at), -1)
    looked = ((start, _header(file, start)) for start in starts)
    return found | {start + _HEADER_BYTES: header for start, header in looked if header}


def _header(file: BinaryIO, at: int) -> tuple[str, int] | None:
    if not 0 <= at < os.fstat(file.fileno()).st_size:
        return None
    file.seek(at)
    try:
        info = tarfile.TarInfo.frombuf(file.read(_HEADER_BYTES), "utf-8", "backslashreplace")
    except tarfile.TarError:
        return None
    name = "".join(letter if letter.isprintable() else "?" for letter in info.name)
    return (name[:120], info.size) if info.size >= 0 else None


def _moved(
    shard: str, members: Sequence[_Member], lost: Sequence[_Member], found: dict[int, tuple[str, int]]
) -> Iterator[Fault]:
    """Members that are not where the receipt says, or more than once, or not in the receipt."""
    offsets = defaultdict(list)
    for offset, (name, _) in sorted(found.items()):
        offsets[name].append(offset)
    # what is told of already, where another's place is told of
    there = {member.name for member in members} | {found.get(member.offset, ("", 0))[0] for member in members}
    for member in (member for member in members if member not in lost):
        name, size = found.get(member.offset, ("", 0))
        elsewhere = offsets.get(member.name, [])
        if name == member.name and size != member.size:
            yield Fault(shard, f"its tar header says {size} bytes, the receipt {member.size}", member.name)
        elif name and name != member.name:
            yield Fault(shard, f"{name} lies in its place", member.name)
        elif not name and elsewhere:
            distance = elsewhere[0] - member.offset
            way = f"{abs(distance)} bytes {'later' if distance > 0 else 'earlier'}"
            yield Fault(shard, f"lies {way} than the receipt says", member.name)
        elif not name:
            yield Fault(shard, "its tar header is damaged", member.name)
    for name, places in offsets.items():
        if len(places) > 1:
            yield Fault(shard, f"is {len(places)} times in the tar, at bytes {', '.join(map(str, places[:8]))}", name)
        elif name not in there:
            yield Fault(shard, f"is in the tar, at byte {places[0]}, but not in the receipt", name)


def _differing(
    file: BinaryIO, shard: str, members: Sequence[_Member], blocks: Sequence[int], told: set[str | None]
) -> Iterator[Fault]:
    """A fault for each member that blocks lie in, but for blocks that are explained by what has been told."""
    within: dict[str, list[int]] = defaultdict(list)
    rest = []
    for block in blocks:
        low, high = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
        names = [member.name for member in members if member.start < high and low < member.end]
        if not names and not told:
            rest.append(block)
        for name in names if told.isdisjoint(names) else ():
            within[name].append(block)
    alike: dict[tuple[int, ...], list[_Member]] = defaultdict(list)
    for member in members:
        if member.name in within:
            alike[tuple(within[member.name])].append(member)
    for numbers, group in alike.items():
        rows = group[0].rows(numbers)
        stream = rows[0] if len(rows) == 1 == len(group) else None
        parts = [f"{member.name} {_part(file, member, numbers, within)}".strip() for member in group[:_MOST_LINES]]
        told_as = ", ".join(parts).removeprefix(group[0].name).lstrip()
        yield Fault(shard, _blocks(numbers), group[0].name, stream, told_as)
    if rest:
        yield Fault(shard, f"{_blocks(rest)}, in the tar's empty end")


def _part(file: BinaryIO, member: _Member, numbers: Sequence[int], damaged: Iterable[str]) -> str:
    rows = member.rows(numbers)
    if len(rows) == 1:
        return f"stream {rows[0]}{_who(file, member, rows[0], damaged)}"
    return f"streams {_ranges(rows)}" if rows else ""


def _who(file: BinaryIO, member: _Member, row: int, damaged: Iterable[str]) -> str:
    """Which stem or mix a stream is, as far as the example's json is sound."""
    entry = member.entry
    stems = entry.shapes["stems.npy"][0]
    number = row + stems if member.key == "mixes.npy" else row
    if number < stems == len(entry.sources):
        return f" (the stem {list(entry.sources)[number]})"
    if f"{entry.id}.json" in damaged:
        return " (a mix)"
    offset, size = entry.members["json"]
    file.seek(offset)
    try:
        meta: Any = json.loads(file.read(size))
        return f" (a mix of {', '.join(str(meta['stems'][i]) for i in meta['members'][number])})"
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return " (a mix)"


def _in_short(faults: Iterable[Fault]) -> list[Fault]:
    """What is the same of many members in one line, and no more lines than a person reads."""
    alike: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        alike[fault.what].append(fault)
    short: list[Fault] = []
    for group in alike.values():
        names = [fault.member for fault in group[1:] if fault.member]
        many = len(names) >= 4
        short += [replace(group[0], what=f"{group[0].what}; and so of {_names(names)}")] if many else group
    if len(short) <= _MOST_LINES:
        return short
    names = [fault.member for fault in short[_MOST_LINES:] if fault.member]
    return [*short[:_MOST_LINES], Fault(short[0].shard, f"and faults in {_names(names)}")]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more, to {names[-1]}"


def _blocks(numbers: Sequence[int]) -> str:
    return f"block {numbers[0]} differs" if len(numbers) == 1 else f"blocks {_ranges(numbers)} differ"


def _ranges(numbers: Sequence[int], most: int = 8) -> str:
    """3, 5 to 9, …"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    told = [str(low) if low == high else f"{low} to {high}" for low, high in runs]
    return ", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")


def _padded(size: int) -> int:
    return -(-size // _HEADER_BYTES) * _HEADER_BYTES
