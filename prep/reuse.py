"""Streams that need not be encoded again, because a complete generation of the same dataset holds them.

A stream's digest covers all that decides its bytes: the content of its sources, what is done to them, the gains, the
codec. It stands in the receipts; equal digests are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import shards
from prep.codecs import CodecIdentity
from prep.config import PrepConfig
from prep.plan import PlanRow
from prep.stem import is_drums

ENCODING_VERSION = 1  # raise it when equal settings would give other bytes


@dataclass(frozen=True)
class Place:
    """Where a stream lies: an example of a generation, and its row among the example's streams, stems first."""

    folder: Path
    example: int
    row: int


@dataclass(frozen=True)
class Stream:
    """What a finished stream brings with it."""

    latents: np.ndarray  # (frames, dim) float16
    levels: np.ndarray  # (frames at 50 Hz,) float16
    gain_db: float
    loudness_lufs: float


def stream_digests(row: PlanRow, config: PrepConfig, identity: CodecIdentity) -> tuple[str, ...]:
    """One for each stem, then one for each mix."""
    loudness = config.loudness
    shared: list[Any] = [ENCODING_VERSION, identity.digest, row.samples, loudness.ceiling_db, loudness.true_peak]
    if not row.files_augmented:
        shared += [row.augmentation]
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


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def known_streams(out: Path, without: Path | None = None) -> dict[str, Place]:
    """Every stream of the complete generations in OUT but `without`, by digest. What cannot be read holds none."""
    known: dict[str, Place] = {}
    for index in sorted(out.glob("generations/*/dataset.json")):
        if index.parent == without:
            continue
        try:
            for number, record in enumerate(shards.open(index.parent)):
                for row, digest in enumerate(record.entry.streams):
                    known.setdefault(digest, Place(index.parent, number, row))
        except shards.ShardError:
            continue
    return known


def read_streams(places: Mapping[int, Place]) -> dict[int, Stream]:
    """Copies of the streams at `places`, but for those whose shard is not what its receipt says."""
    found = {}
    for key, place in places.items():
        dataset = _opened(place.folder)
        record = dataset[place.example] if dataset else None
        if record and _is_sound(record.shard.path):
            found[key] = _copied(record, place.row)
    return found


@lru_cache(maxsize=8)
def _opened(folder: Path) -> shards.Dataset | None:
    try:
        return shards.open(folder)
    except shards.ShardError:
        return None


@lru_cache(maxsize=256)
def _is_sound(tar: Path) -> bool:
    """Looked at once a process: a fault must not be copied into a new shard, whose digests would vouch for it."""
    return not any(shards.faults(tar))


def _copied(record: shards.Record, row: int) -> Stream:
    n, meta = record.meta["n_stems"], record.meta
    latents = record["stems"][row] if row < n else record["mixes"][row - n]
    levels = record["levels"][row]
    return Stream(np.array(latents), np.array(levels), meta["gains_db"][row], meta["loudness_lufs"][row])
