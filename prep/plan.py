"""Decides from the scan alone: which stems are used, their gains, the mixes, their levels' offsets, the shards.

Equal scans and settings give equal plans on every machine; the plan's digest names the generation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import pandas as pd

from prep.config import PrepConfig
from prep.draws import rng_for
from prep.multitrack import SPLITS
from prep.scan import VERSION, ScanRow, write_table
from prep.stages.activity import is_silent
from prep.stages.loudness import ceiling_gain_db, gain_to_db
from prep.stages.mixing import Members, draw_mixes
from shards import shard_of

PLAN_VERSION = 1  # raise it when the same scan would be planned otherwise, or built otherwise


@dataclass(frozen=True)
class PlanRow:
    """One example to build. Lists over stems are in stem order, `mixes` and `offsets_db` in mix order."""

    id: str
    split: str
    corpus: str
    licence: str
    shard: int
    samples: int
    stems: tuple[str, ...]
    paths: tuple[str, ...]  # relative to the root
    digests: tuple[str, ...]
    programs: tuple[int, ...]
    instruments: tuple[str, ...]
    gains_db: tuple[float, ...]
    loudness_lufs: tuple[float, ...]  # after the gain
    mixes: tuple[Members, ...]
    offsets_db: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    rows: tuple[PlanRow, ...]
    shards: dict[str, int]  # split -> how many
    verdicts: dict[str, tuple[str, str]] = field(repr=False)  # path -> (reason or "", detail)
    digest: str = ""


def make_plan(scan: Iterable[ScanRow], config: PrepConfig, bytes_per_sample: float) -> Plan:
    """`bytes_per_sample`: what one sample of one stream comes to in a shard."""
    verdicts: dict[str, tuple[str, str]] = {}
    rows = []
    for _, group in groupby(scan, key=lambda row: row.id):
        row = _plan_multitrack(list(group), config, verdicts)
        if row:
            rows.append(row)
    shards = {split: _shard_count([r for r in rows if r.split == split], config, bytes_per_sample) for split in SPLITS}
    shards = {split: count for split, count in shards.items() if count}
    placed = tuple(PlanRow(**{**asdict(r), "shard": shard_of(r.id, shards[r.split])}) for r in rows)
    return Plan(placed, shards, verdicts, _digest(placed, config))


def _plan_multitrack(group: list[ScanRow], config: PrepConfig, verdicts: dict[str, tuple[str, str]]) -> PlanRow | None:
    kept, gains, levels = [], [], []
    for row in group:
        if row.reason:
            verdicts[row.path] = (row.reason, row.detail)
            continue
        gain = _stem_gain_db(row, config)
        if is_silent(row.levels_db + gain, config.activity.threshold_db, config.activity.min_active_s):
            detail = f"sounds for less than {config.activity.min_active_s:g} s over {config.activity.threshold_db:g} dB"
            verdicts[row.path] = ("silent", detail)
            continue
        kept.append(row)
        gains.append(gain)
        levels.append(row.loudness_lufs + gain)
    targets = [i for i, row in enumerate(kept) if row.instrument not in config.instruments.exclude_targets]
    reason = _unfit(len(kept), len(targets))
    samples = max((row.samples for row in kept), default=0)
    for row in kept:
        detail = f"padded from {row.samples} to {samples} samples" if row.samples < samples else ""
        verdicts[row.path] = reason or ("", detail)
    if reason:
        return None
    mixing = config.mixing
    names, rng_of = [row.stem for row in kept], partial(rng_for, config.seed, group[0].id)
    mixes = draw_mixes(names, targets, range(len(kept)), mixing.subsets_per_target, mixing.size_law, rng_of)
    return PlanRow(
        id=kept[0].id,
        split=kept[0].split,
        corpus=kept[0].corpus,
        licence=kept[0].licence,
        shard=0,
        samples=samples,
        stems=tuple(row.stem for row in kept),
        paths=tuple(row.path for row in kept),
        digests=tuple(row.digest for row in kept),
        programs=tuple(row.program for row in kept),
        instruments=tuple(row.instrument for row in kept),
        gains_db=tuple(gains),
        loudness_lufs=tuple(levels),
        mixes=mixes,
        offsets_db=tuple(_offset_db(kept, members, config) for members in mixes),
    )


def _stem_gain_db(row: ScanRow, config: PrepConfig) -> float:
    """To equal loudness, then under the ceiling."""
    loudness = config.loudness
    gain = gain_to_db(row.loudness_lufs, loudness.stem_lufs, loudness.max_gain_db)
    return gain + ceiling_gain_db(row.peak * 10 ** (gain / 20), loudness.ceiling_db)


def _offset_db(kept: list[ScanRow], members: Members, config: PrepConfig) -> float:
    """Uniform within the configured range, keyed by the members' names: other mixes do not change it."""
    stage = "mix_level:" + "+".join(kept[i].stem for i in members)
    most = config.loudness.mix_offset_db
    return float(rng_for(config.seed, kept[0].id, stage).uniform(-most, most))


def _unfit(stems: int, targets: int) -> tuple[str, str] | None:
    if stems < 2:
        return ("too_few_stems", "a pair needs two stems that sound")
    if not targets:
        return ("no_target", "every stem's class is in instruments.exclude_targets")
    return None


def _shard_count(rows: list[PlanRow], config: PrepConfig, bytes_per_sample: float) -> int:
    """By size; depends on the total only, so that a few songs more move nothing until a shard is full."""
    total = sum((len(row.stems) + len(row.mixes)) * row.samples * bytes_per_sample for row in rows)
    return max(1, round(total / (config.shards.size_mb * 1e6))) if rows else 0


def _digest(rows: tuple[PlanRow, ...], config: PrepConfig) -> str:
    """Of contents and settings; where the files lie does not count."""
    settings = config.model_dump(include={"seed", "activity", "loudness", "mixing", "audio", "instruments", "augment"})
    described = [{k: v for k, v in asdict(row).items() if k != "paths"} for row in rows]
    text = json.dumps([PLAN_VERSION, VERSION, settings, described], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_plan(plan: Plan, path: Path) -> None:
    """plan.parquet, a row an example."""
    write_table(pd.DataFrame([asdict(row) for row in plan.rows]), path)
