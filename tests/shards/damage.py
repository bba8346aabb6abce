"""What can happen to a dataset on disk, each as a function of (a copy of OUT, rng) -> what was done and where.

Damaged is what training reads: the tars that dataset.json lists, their receipts, dataset.json and `current`. Beside
them lie the receipts of shards that no example fell into and OUT's parquet files, which only `prep` reads.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK = 512


@dataclass(frozen=True)
class Damage:
    """`file` and, in one of its tar's, all of `members` must be named by whoever finds it."""

    kind: str
    told: str
    file: str
    members: tuple[str, ...] = ()

    def is_named(self, lines: list[str]) -> bool:
        about = " ".join(line for line in lines if self.file in line)
        return bool(about) and all(member in about for member in self.members)


@dataclass(frozen=True)
class Place:
    """A member in its tar: its header at `start`, its data from `offset`, its padding up to `end`."""

    name: str
    start: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + -(-self.size // BLOCK) * BLOCK


def folder_of(out: Path) -> Path:
    return out / "generations" / (out / "current").read_text().strip()


def tars_of(out: Path) -> list[Path]:
    """All that dataset.json lists."""
    splits = json.loads((folder_of(out) / "dataset.json").read_bytes())["splits"].values()
    return [folder_of(out) / shard["name"] for split in splits for shard in split["shards"]]


def places(tar: Path) -> list[Place]:
    with tarfile.open(tar) as file:
        return [Place(item.name, item.offset, item.offset_data, item.size) for item in file.getmembers()]


def any_of(items: list, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    return items[rng.integers(len(items))]


def _flip(path: Path, low: int, high: int, rng: np.random.Generator) -> str:
    at, bit = int(rng.integers(low, high)), int(rng.integers(8))
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name}: bit {bit} of byte {at}"


def _flip_within(span: Callable[[Place], tuple[int, int]], wanted: str = "") -> Callable[..., tuple]:
    """Flips a bit of one member whose name ends in `wanted` and whose `span` is not empty."""

    def damage(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
        found = [
            (tar, place)
            for tar in tars_of(out)
            for place in places(tar)
            if place.name.endswith(wanted) and span(place)[0] < span(place)[1]
        ]
        tar, place = any_of(found, rng)
        return _flip(tar, *span(place), rng), tar.name, (place.name,)

    return damage


def _flip_end(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    tar = any_of(tars_of(out), rng)
    return _flip(tar, places(tar)[-1].end, tar.stat().st_size, rng), tar.name, ()


def _flip_file(pick: Callable[[Path, np.random.Generator], Path]) -> Callable[..., tuple]:
    def damage(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
        path = pick(out, rng)
        shard = "-00" in path.stem  # of a receipt the shard is to be named
        return _flip(path, 0, path.stat().st_size, rng), path.stem if shard else path.name, ()

    return damage


def _cut(inside: bool) -> Callable[..., tuple]:
    """What must be named is the first member that is lost."""

    def damage(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
        tar = any_of(tars_of(out), rng)
        place = any_of(places(tar), rng)
        at = int(rng.integers(place.start + 1, place.offset + place.size)) if inside else place.start
        tar.write_bytes(tar.read_bytes()[:at])
        return f"{tar.name} cut to {at} bytes, {'within' if inside else 'before'} {place.name}", tar.name, (place.name,)

    return damage


def _swap(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    """Two members change places, headers and all."""
    tar = any_of(tars_of(out), rng)
    every = places(tar)
    low, high = (every[i] for i in np.sort(rng.choice(len(every), 2, replace=False)))
    data = tar.read_bytes()
    parts = [data[: low.start], data[high.start : high.end], data[low.end : high.start], data[low.start : low.end]]
    tar.write_bytes(b"".join([*parts, data[high.end :]]))
    return f"{tar.name}: {low.name} and {high.name} swapped", tar.name, (low.name, high.name)


def _missing(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    tar = any_of(tars_of(out), rng)
    gone = [tar, tar.with_suffix(".json")] if rng.random() < 0.3 else [tar]
    for path in gone:
        path.unlink()
    return f"{' and '.join(path.name for path in gone)} missing", tar.stem, ()


def _duplicate(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    """The members of one example take the key of another one in the same tar, with valid headers."""
    several = [tar for tar in tars_of(out) if len(places(tar)) > 4]
    tar = any_of(several, rng)
    every = places(tar)
    keys = list(dict.fromkeys(place.name.split(".")[0] for place in every))
    taken, victim = (keys[i] for i in rng.choice(len(keys), 2, replace=False))
    renamed = [place for place in every if place.name.startswith(f"{victim}.")]
    data = bytearray(tar.read_bytes())
    for place in renamed:
        info = tarfile.TarInfo(taken + place.name.removeprefix(victim))
        info.size = place.size
        data[place.start : place.offset] = info.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(data)
    return f"{tar.name}: key {victim} is now {taken}", tar.name, tuple(place.name for place in renamed)


def _other_receipt(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    tars = tars_of(out)
    one, other = (tars[i].with_suffix(".json") for i in rng.choice(len(tars), 2, replace=False))
    one.write_bytes(other.read_bytes())
    return f"{one.name} is the receipt of {other.stem}", one.stem, ()


def _wrong_current(out: Path, rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    (out / "generations" / "unfinished").mkdir()
    texts = [b"", b"nobody\n", b"unfinished\n", b"../../elsewhere\n", b"/etc\n", b"\x00\xff", b"..\n", b"x" * 200]
    text = any_of(texts, rng)
    (out / "current").write_bytes(text)
    return f"current holds {text[:20]!r}", "current", ()


# kind -> (how many of 300, the damage)
KINDS: dict[str, tuple[int, Callable[[Path, np.random.Generator], tuple[str, str, tuple[str, ...]]]]] = {
    "flipped bit: latents, levels": (60, _flip_within(lambda place: (place.offset, place.offset + place.size), ".npy")),
    "flipped bit: .npy header": (15, _flip_within(lambda place: (place.offset, place.offset + 128), ".npy")),
    "flipped bit: json": (20, _flip_within(lambda place: (place.offset, place.offset + place.size), ".json")),
    "flipped bit: tar header": (20, _flip_within(lambda place: (place.start, place.offset))),
    "flipped bit: padding": (10, _flip_within(lambda place: (place.offset + place.size, place.end))),
    "flipped bit: tar's end": (10, _flip_end),
    "flipped bit: receipt": (20, _flip_file(lambda out, rng: any_of(tars_of(out), rng).with_suffix(".json"))),
    "flipped bit: dataset.json": (15, _flip_file(lambda out, rng: folder_of(out) / "dataset.json")),
    "flipped bit: current": (10, _flip_file(lambda out, rng: out / "current")),
    "tar cut at a member's edge": (20, _cut(inside=False)),
    "tar cut inside a member": (20, _cut(inside=True)),
    "swapped members": (20, _swap),
    "missing shard": (15, _missing),
    "duplicated key": (15, _duplicate),
    "receipt of another shard": (15, _other_receipt),
    "wrong current": (15, _wrong_current),
}


def damaged(out: Path, kind: str, rng: np.random.Generator) -> Damage:
    """Does damage of this kind to OUT."""
    return Damage(kind, *KINDS[kind][1](out, rng))
