"""What need not be made again, because a generation of the same dataset holds it.

A digest stands for all that decides a thing's bytes. Of a stream's *audio*: the content of its sources, what is done to
them, the gains; where it is equal, so are level and loudness, whatever the codec. Of a *stream*: its audio and the
codec. Of a *shard*: its examples' plans and streams. They stand in the receipts; equal digests are equal bytes. Where
files lie and when they were touched is in none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import shards
from prep.codecs import CodecIdentity
from prep.config import PrepConfig
from prep.plan import PlanRow
from prep.scan import Target
from prep.stem import is_drums

Found = TypeVar("Found")

# Raise what changes: with equal sources and settings, what a stream sounds like or measures; what a rendition sounds
# like; how audio is handed to the codec. (What the codec makes of it is its own architecture's version.)
AUDIO_VERSION = 1
AUGMENT_VERSION = 1
ENCODING_VERSION = 1


@dataclass(frozen=True)
class Place:
    """Where a stream lies: an example of a generation, and its row among the example's streams, stems first."""

    folder: Path
    example: int
    row: int


@dataclass(frozen=True)
class Known:
    """What the complete generations hold, by digest."""

    streams: dict[str, Place] = field(default_factory=dict)
    audio: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Of a stream as it is stored."""

    gain_db: float  # of a stem: on its audio; of a mix: on the sum of its stems
    loudness_lufs: float
    levels: np.ndarray  # (frames at 50 Hz,) float16


@dataclass(frozen=True)
class Stream:
    """What a finished stream brings with it."""

    latents: np.ndarray  # (frames, dim) float16
    measured: Measured


def audio_digests(row: PlanRow, config: PrepConfig, target: Target) -> tuple[str, ...]:
    """One for each stem, then one for each mix."""
    loudness = config.loudness
    shared: list[Any] = [AUDIO_VERSION, target.rate, target.channels, row.samples]
    shared += [loudness.ceiling_db, loudness.true_peak]
    shared += ["24 bits"] if config.keep_audio else []
    if not row.files_augmented and row.augmentation != "{}":
        shared += [AUGMENT_VERSION, row.augmentation]
    if not row.gains_db:
        shared += [loudness.policy, loudness.stem_lufs, loudness.max_gain_db]
        # one gain for all: it hangs on every stem, and on what was done to it
        everything = [row.digests, [is_drums(row, i) for i in range(len(row.stems))]]
        shared += everything if loudness.policy == "as_recorded" else []
    stems = []
    for i, digests in enumerate(row.digests):
        gain = row.gains_db[i] if row.gains_db else None
        stems.append(_digest([shared, digests, gain, row.drawn_gains_db[i], is_drums(row, i)]))
    mixes = [
        _digest([[stems[i] for i in sorted(members)], loudness.mix_lufs, offset])  # in the order of summing
        for members, offset in zip(row.mixes, row.offsets_db, strict=True)
    ]
    return (*stems, *mixes)


def stream_digests(audio: Sequence[str], identity: CodecIdentity) -> tuple[str, ...]:
    """Of streams of that audio, encoded."""
    codec = identity.to_json()
    return tuple(_digest([ENCODING_VERSION, each, codec]) for each in audio)


def shard_digest(rows: Sequence[PlanRow], streams: Sequence[tuple[str, ...]]) -> str:
    """Of a shard with these examples and their streams."""
    described = [{k: v for k, v in asdict(row).items() if k != "paths"} for row in rows]
    return _digest([described, streams])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def known_in(out: Path) -> Known:
    """Of the complete generations in OUT. What cannot be read holds nothing."""
    known = Known()
    for index in sorted(out.glob("generations/*/dataset.json")):
        try:
            for number, record in enumerate(shards.open(index.parent)):
                for row, (stream, audio) in enumerate(zip(record.entry.streams, record.entry.audio, strict=True)):
                    place = Place(index.parent, number, row)
                    known.streams.setdefault(stream, place)
                    known.audio.setdefault(audio, place)
        except shards.ShardError:
            continue
    return known


def read_streams(places: Mapping[int, Place]) -> dict[int, Stream]:
    """Copies of the streams at `places`, but for those whose bytes are not what their receipt says."""
    return _read(places, lambda record, row: Stream(np.array(_latents(record, row)), _measured(record, row)))


def read_measured(places: Mapping[int, Place]) -> dict[int, Measured]:
    """What is known of the audio of the streams at `places`, but for those whose bytes are not what they should be."""
    return _read(places, _measured)


def _read(places: Mapping[int, Place], take: Callable[[shards.Record, int], Found]) -> dict[int, Found]:
    found = {}
    for number, place in places.items():
        # a fault must not be copied into a new shard, whose digests would vouch for it
        with suppress(shards.ShardError):
            found[number] = take(_opened(place.folder)[place.example], place.row)
    return found


def take_over(out: Path, folder: Path, made_of: Mapping[str, str]) -> list[str]:
    """Puts the shards (name -> digest) that other generations in OUT hold into `folder`, as links where the file
    system has them; the names of those that were found and sound."""
    same = {name: next(_same(out, name, digest), None) for name, digest in made_of.items()}
    taken = {name: tar for name, tar in same.items() if tar}
    for tar in taken.values():
        link(tar, folder)
    return list(taken)


def _same(out: Path, name: str, made_of: str) -> Iterator[Path]:
    """One after another: to tell that a shard is sound, all of it is read."""
    for tar in sorted(out.glob(f"generations/*/{name}")):
        receipt = shards.finished(tar)
        if receipt and receipt.made_of == made_of and receipt.examples and not any(shards.faults(tar)):
            yield tar


def link(tar: Path, folder: Path) -> None:
    """Puts a tar and its receipt into `folder`. The receipt last: where it is, its tar is whole."""
    for path in (tar, tar.with_suffix(".json")):
        part = folder / f".{path.name}.{os.getpid()}.part"
        part.unlink(missing_ok=True)
        try:
            os.link(path, part)
        except OSError:
            shutil.copyfile(path, part)
        os.replace(part, folder / path.name)


@lru_cache(maxsize=8)
def _opened(folder: Path) -> shards.Dataset:
    return shards.open(folder)


def _latents(record: shards.Record, row: int) -> np.ndarray:
    n = record.meta["n_stems"]
    return np.asarray(record["stems"][row] if row < n else record["mixes"][row - n])


def _measured(record: shards.Record, row: int) -> Measured:
    meta = record.meta
    return Measured(meta["gains_db"][row], meta["loudness_lufs"][row], np.array(record["levels"][row]))
