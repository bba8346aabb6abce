"""One example from its plan: read the stems, sum the mixes, measure, encode. Runs in a worker, alone.

Audio is walked through in stretches, twice: once for the mixes' loudness, once to encode. So memory holds one stem at
a time, and the latents, whatever the number of stems and their length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import shards
from prep.choice import gains_by
from prep.codecs import Codec, load_codec
from prep.config import PrepConfig
from prep.encode import encode
from prep.errors import PrepError
from prep.plan import PlanRow
from prep.reuse import Measured, Place, audio_digests, read_measured, read_streams, stream_digests
from prep.scan import Target
from prep.spool import Spool
from prep.stages.loudness import SILENCE_LUFS, ceiling_gain_db, noted
from prep.stages.meter import Meter
from prep.stages.mixing import Members, mix_audio, mix_gain_db
from prep.stem import read_stem

# samples a look at the mixes before that
MEASURED_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Built:
    """An example; the seconds of audio that were read and encoded for it, how many of its streams were encoded, and
    the seconds that each stage took."""

    example: shards.Example
    stem_s: float
    stream_s: float
    encoded: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Job:
    """An example to build, and where finished streams of it lie, by their number: stems first, then mixes. Streams of
    the same audio, in `heard`, bring what is measured of it."""

    row: PlanRow
    known: Mapping[int, Place] = field(default_factory=dict)
    heard: Mapping[int, Place] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def members(self) -> list[Members]:
        """Of every stream."""
        return [*((i,) for i in range(len(self.row.stems))), *self.row.mixes]

    @property
    def missing(self) -> list[int]:
        """The streams that are not known."""
        return [number for number in range(len(self.members)) if number not in self.known]

    @property
    def needed(self) -> list[int]:
        """The stems that the missing streams are made of."""
        members = self.members
        return sorted({i for number in self.missing for i in members[number]})


def build_example(job: Job, root: Path, scratch: Path, config: PrepConfig, target: Target) -> Built:
    """Every stream that is not known already is measured and encoded. `scratch`: a folder for what memory cannot hold.

    Raises PrepError when a source has changed since the scan.
    """
    clock, row = Clock(), job.row
    codec = _codec(config.codec)
    n, members = len(row.stems), job.members
    frames = math.ceil(row.samples / codec.identity.hop)
    latents = np.zeros((len(members), frames, codec.identity.dim), np.float16)
    streams = read_streams(job.known)
    for number, stream in streams.items():
        latents[number] = stream.latents
    job = replace(job, known={number: job.known[number] for number in streams})  # without what was damaged
    missing, needed = job.missing, job.needed
    measured = {number: stream.measured for number, stream in streams.items()}
    measured |= read_measured({number: job.heard[number] for number in missing if number in job.heard})
    clock.lap("copy")
    unmeasured = [i for i in needed if i not in measured and (i in missing or not row.gains_db)]
    if unmeasured and not row.gains_db and config.loudness.policy == "as_recorded":
        needed = unmeasured = list(range(n))  # one gain for all
    with Spool(target.channels, row.samples, scratch) as spool:
        measured |= _read_stems(row, needed, unmeasured, root, config, target, spool, clock)
        gains_db = [measured[i].gain_db if i in measured else gain for i, gain in enumerate(row.gains_db or n * [0.0])]
        mixes = {number: members[number] for number in missing if number >= n and number not in measured}
        measured |= _measure_mixes(row, mixes, gains_db, spool, config, target, clock)
        wanted = {number: (members[number], measured[number].gain_db) for number in missing}
        encode(codec, wanted, gains_db, spool, latents, clock.lap)
    if not np.isfinite(latents).all():
        raise PrepError(f"{row.id}: the codec gave latents that are not finite. Certify the codec.")
    ordered = [measured[number] for number in range(len(members))]
    audio = audio_digests(row, config, target)
    example = shards.Example(
        id=row.id,
        meta=_meta(job, ordered, frames),
        stems=latents[:n],
        mixes=latents[n:],
        levels=np.stack([stream.levels for stream in ordered]),
        sources=sources_of(row),
        streams=stream_digests(audio, codec.identity),
        audio=audio,
    )
    length_s = row.samples / target.rate
    return Built(example, len(needed) * length_s, len(missing) * length_s, len(missing), clock.seconds)


def sources_of(row: PlanRow) -> dict[str, str]:
    """Each stem's digest, or digests where it is a sum."""
    return {name: "+".join(digests) for name, digests in zip(row.stems, row.digests, strict=True)}


def _read_stems(
    row: PlanRow,
    needed: list[int],
    unmeasured: list[int],
    root: Path,
    config: PrepConfig,
    target: Target,
    spool: Spool,
    clock: Clock,
) -> dict[int, Measured]:
    """The stems that are needed, into the spool; measures of the `unmeasured`, with gains where the plan has none."""
    meters = {i: _meter(row, config, target) for i in unmeasured}
    for i in needed:
        audio = read_stem(row, i, root, target, clock.lap)
        if i in meters:
            meters[i].feed(audio)
            clock.lap("measure")
        spool.put(i, audio)
        del audio  # before the next one is read
        clock.lap("read")
    if row.gains_db:
        gains = [row.gains_db[i] for i in meters]
    else:
        measured = list(meters.values())
        gains = gains_by(
            config.loudness, [_lufs(each) for each in measured], [_peak(each, config) for each in measured]
        )
    found = {}
    for i, gain in zip(meters, gains, strict=True):
        total = gain + row.drawn_gains_db[i]
        if row.drawn_gains_db[i] > 0:
            total += ceiling_gain_db(_peak(meters[i], config) * 10 ** (total / 20), config.loudness.ceiling_db)
        found[i] = _after(meters[i], total)
    return found


def _meter(row: PlanRow, config: PrepConfig, target: Target) -> Meter:
    return Meter(target.rate, target.channels, row.samples, true_peak=config.loudness.true_peak)


def _lufs(meter: Meter) -> float:
    return noted(meter.lufs())


def _after(meter: Meter, gain_db: float) -> Measured:
    """What was measured, after a gain."""
    lufs = max(SILENCE_LUFS, _lufs(meter) + gain_db)
    return Measured(gain_db, lufs, meter.levels_db(gain_db).astype(np.float16))


def _peak(meter: Meter, config: PrepConfig) -> float:
    return meter.true_peak if config.loudness.true_peak else meter.peak


def _measure_mixes(
    row: PlanRow,
    mixes: dict[int, tuple[int, ...]],
    gains_db: list[float],
    spool: Spool,
    config: PrepConfig,
    target: Target,
    clock: Clock,
) -> dict[int, Measured]:
    meters = {number: _meter(row, config, target) for number in mixes}
    used = (i for members in mixes.values() for i in members)
    for stems in spool.stretches(used, MEASURED_SAMPLES):
        clock.lap("read")
        for number, members in mixes.items():
            total = mix_audio(stems, gains_db, members)
            clock.lap("mix")
            meters[number].feed(total)
            clock.lap("measure")
    found, loudness = {}, config.loudness
    for number, meter in meters.items():
        offset = row.offsets_db[number - len(row.stems)]
        gain = mix_gain_db(_lufs(meter), _peak(meter, config), loudness.mix_lufs, offset, loudness.ceiling_db)
        found[number] = _after(meter, gain)
    return found


def _meta(job: Job, streams: Sequence[Measured], frames: int) -> dict[str, Any]:
    """The example's json: every key always there, with one type."""
    row = job.row
    return {
        "id": row.id,
        "original": row.original,
        "augmentation": row.augmentation,
        "split": row.split,
        "corpus": row.corpus,
        "licence": row.licence,
        "n_stems": len(row.stems),
        "n_mixes": len(row.mixes),
        "frames": frames,
        "samples": row.samples,
        "levels_frames": len(streams[0].levels),
        "stems": list(row.stems),
        "programs": list(row.programs),
        "instruments": list(row.instruments),
        "members": [list(members) for members in job.members],
        "gains_db": [float(stream.gain_db) for stream in streams],
        "loudness_lufs": [float(stream.loudness_lufs) for stream in streams],
    }


@lru_cache(maxsize=2)
def _codec(spec: str) -> Codec:
    return load_codec(spec)


class Clock:
    """Seconds a stage, from lap to lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
