"""Kept audio held to its receipts: every byte of the tars in OUT/audio, and whether all are there."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from prep.kept import FORMAT, made_of
from shards import ShardError
from shards.damage import Fault
from shards.receipt import dump_json
from shards.verify import load_index

_BLOCK = 1 << 20
_KEYS = {"name", "offset", "size", "sha256", "audio"}
Seen = Callable[[int], None]


class KeptAudio:
    """What there is to be looked at: `tars` by their paths below OUT, `bytes` in all. `notes` are no faults."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.notes: list[str] = []
        found = {path.with_suffix(".tar") for path in out.glob("audio/*/*") if path.suffix in (".tar", ".json")}
        self.tars = sorted(tar.relative_to(out).as_posix() for tar in found | set(self._listed()))
        self.bytes = sum((out / name).stat().st_size for name in self.tars if (out / name).is_file())
        left = sorted(out.glob("audio/*/*.part"))
        self.notes += [f"{path.relative_to(out)} was left by a killed run" for path in left]

    def faults(self, workers: int, seen: Seen) -> Iterator[Fault]:
        """Tar after tar, `workers` of them at a time; `seen` is told of bytes as they are read, by several threads."""
        pool = ThreadPoolExecutor(workers)
        try:
            for found in pool.map(lambda name: list(faults_of(self._out / name, name, seen)), self.tars):
                yield from found
        finally:
            pool.shutdown(cancel_futures=True)

    def _listed(self) -> Iterator[Path]:
        """The tars that complete generations keep; a copy of a dataset may do without any."""
        for path in sorted(self._out.glob("generations/*/dataset.json")):
            index: dict[str, Any] = {}
            with suppress(ShardError):  # a fault of the generation's own
                index = load_index(path.parent)
            if not index or not index["config"].get("keep_audio"):
                continue
            folder = self._out / "audio" / index["plan"]
            if folder.is_dir():
                yield from (folder / item["name"] for split in index["splits"].values() for item in split["shards"])
            else:
                self.notes.append(f"{folder.relative_to(self._out)}, kept for {path.parent.name}, is not here")


def faults_of(tar: Path, name: str, seen: Seen = lambda count: None) -> Iterator[Fault]:
    """All that is amiss with one tar, which is told as `name`, held to the receipt beside it."""
    try:
        data = tar.with_suffix(".json").read_bytes()
        receipt = json.loads(data)
        if dump_json(receipt) != data or not _is_whole(receipt):
            raise ValueError("it does not agree with itself")
    except FileNotFoundError:
        yield Fault(name, "its receipt is missing" if tar.exists() else "is missing")
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield Fault(name, "its receipt is damaged")
        return
    try:
        with tar.open("rb") as file:
            yield from _in_tar(file, name, receipt, seen)
    except FileNotFoundError:
        yield Fault(name, "the tar is missing")
    except OSError as error:
        yield Fault(name, f"the tar cannot be read ({error.strerror})")


def _is_whole(receipt: dict[str, Any]) -> bool:
    """Whether its parts agree with each other: members follow each other, and are what the tar says it is made of."""
    at, members = 0, receipt["members"]
    for member in members:
        if member.keys() != _KEYS or type(member["size"]) is not int or member["offset"] != at + tarfile.BLOCKSIZE:
            return False
        at = _end(member)
    size = -(-(at + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    made = made_of(_audio(members))
    return bool((receipt["format"], receipt["bytes"], receipt["made_of"]) == (FORMAT, size, made))


def _end(member: dict[str, Any]) -> int:
    """Where its padding ends."""
    return int(member["offset"] + member["size"] + -member["size"] % tarfile.BLOCKSIZE)


def _audio(members: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By example, the digests of its streams' audio."""
    found: dict[str, list[str]] = {}
    for member in members:
        found.setdefault(member["name"].partition(".")[0], []).append(member["audio"])
    return found


def _in_tar(file: BinaryIO, name: str, receipt: dict[str, Any], seen: Seen) -> Iterator[Fault]:
    """Header, data and padding of each member, then the end: so every byte is looked at."""
    size, members = file.seek(0, 2), receipt["members"]
    if size != receipt["bytes"]:
        yield Fault(name, f"the tar has {size} bytes, its receipt says {receipt['bytes']}")
    file.seek(0)
    for member in members:
        info = tarfile.TarInfo(member["name"])
        info.size = member["size"]
        header = file.read(tarfile.BLOCKSIZE)
        if _digest(file, info.size, seen) != member["sha256"]:
            yield Fault(name, "its audio is not what was kept", member["name"])
        padding = file.read(-info.size % tarfile.BLOCKSIZE)
        if header != info.tobuf(tarfile.USTAR_FORMAT) or any(padding):
            yield Fault(name, "its tar header or padding is damaged", member["name"])
    if any(file.read(tarfile.RECORDSIZE)):
        yield Fault(name, "the tar's empty end is damaged")


def _digest(file: BinaryIO, length: int, seen: Seen) -> str:
    """Of what comes next, or of as much as there is of it."""
    digest = hashlib.sha256()
    while block := file.read(min(length, _BLOCK)):
        digest.update(block)
        length -= len(block)
        seen(len(block))
    return digest.hexdigest()
