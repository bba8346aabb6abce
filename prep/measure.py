"""What is measured of an example's streams: of stems as they are read, of mixes once all stems are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prep.choice import gains_by
from prep.config import PrepConfig
from prep.job import Clock, Job
from prep.plan import PlanRow
from prep.reuse import Measured
from prep.scan import Target
from prep.spool import Spool
from prep.stages.loudness import SILENCE_LUFS, ceiling_gain_db, noted
from prep.stages.meter import Meter
from prep.stages.mixing import mix_audio, mix_gain_db
from prep.stem import read_stem

# samples of the mixes that are measured at a time
MEASURED_SAMPLES = 1 << 18


def measure(
    job: Job,
    measured: dict[int, Measured],
    root: Path | None,
    config: PrepConfig,
    target: Target,
    spool: Spool,
    clock: Clock,
) -> tuple[int, list[float]]:
    """Reads the stems that are needed into the spool, and adds to `measured` what is missing there. How many stems
    were read, and the gains of all."""
    row, n, needed = job.row, len(job.row.stems), job.needed
    unmeasured = [i for i in needed if i not in measured and (i in job.missing or not row.gains_db)]
    if unmeasured and not row.gains_db and config.loudness.policy == "as_recorded":
        needed = unmeasured = list(range(n))  # one gain for all
    if root:
        measured |= _read_stems(row, needed, unmeasured, root, config, target, spool, clock)
    gains_db = [measured[i].gain_db if i in measured else gain for i, gain in enumerate(row.gains_db or n * [0.0])]
    mixes = {number: job.members[number] for number in job.mixed if number >= n and number not in measured}
    measured |= _measure_mixes(row, mixes, gains_db, spool, config, target, clock)
    return len(needed), gains_db


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
