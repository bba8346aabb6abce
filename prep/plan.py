"""Decides from the scan alone: which stems are used, their gains, the mixes, their levels' offsets, the shards.

Equal scans and settings give equal plans on every machine; the plan's digest names the generation. Where sound itself
decides (several files summed to one stem, a rendition), gains wait until the stem is built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from prep.choice import Candidate, Choice, choose, gains_of
from prep.config import PrepConfig
from prep.draws import rng_for
from prep.errors import PrepError
from prep.multitrack import MAX_ID, SPLITS
from prep.scan import VERSION, ScanRow, write_table
from prep.stages.augment import Augmentation, augmented_length, draw_heard, draw_stem_gain_db
from prep.stages.mixing import Members, draw_mixes
from shards import shard_of

PLAN_VERSION = 3  # raise it when the same scan would be planned otherwise


@dataclass(frozen=True)
class PlanRow:
    """One example to build. Lists over stems are in stem order, `mixes` and `offsets_db` in mix order."""

    id: str
    original: str  # the multitrack's id; its own, where this is no rendition
    augmentation: str  # what makes it of its files, and what made those files where they are a rendition already
    files_augmented: bool  # the files are the rendition: nothing is left to do
    split: str
    corpus: str
    licence: str
    shard: int
    samples: int
    stems: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]  # relative to the root; several files are summed
    digests: tuple[tuple[str, ...], ...]
    programs: tuple[int, ...]
    instruments: tuple[str, ...]
    gains_db: tuple[float, ...]  # empty: measured when built
    drawn_gains_db: tuple[float, ...]  # on top of the gains: a rendition's
    targets: tuple[int, ...]
    contexts: tuple[int, ...]
    mixes: tuple[Members, ...]
    offsets_db: tuple[float, ...]
    dropped_mixes: int  # drawn, but never heard together with a target

    @property
    def pairs(self) -> int:
        """How many (target, stream without it) there are to train on; a lone stem is a stream like a mix."""
        streams = [*((i,) for i in self.contexts), *self.mixes]
        return sum(target not in members for target in self.targets for members in streams)


@dataclass(frozen=True)
class Plan:
    rows: tuple[PlanRow, ...]
    shards: dict[str, int]  # split -> how many
    verdicts: dict[str, tuple[str, str]] = field(repr=False)  # path -> (reason or "", detail)
    digest: str = ""


def make_plan(scan: Iterable[ScanRow], config: PrepConfig, bytes_per_sample: float) -> Plan:
    """`bytes_per_sample`: what one sample of one stream comes to in a shard."""
    verdicts: dict[str, tuple[str, str]] = {}
    rows: list[PlanRow] = []
    for _, group in groupby(scan, key=lambda row: row.id):
        choice = choose(list(group), config, verdicts)
        if choice:
            rows += _examples(choice, config)
    shards = {split: _shard_count([r for r in rows if r.split == split], config, bytes_per_sample) for split in SPLITS}
    shards = {split: count for split, count in shards.items() if count}
    placed = tuple(replace(r, shard=shard_of(r.id, shards[r.split])) for r in rows)
    return Plan(placed, shards, verdicts, plan_digest(placed, config))


def _examples(choice: Choice, config: PrepConfig) -> list[PlanRow]:
    """The multitrack itself and, of one that is for training and no rendition already, its renditions."""
    first = choice.stems[0].rows[0]
    examples = [_plan(choice, config, first.id, Augmentation.from_json(first.augmentation), bool(first.original))]
    if first.split == "train" and not first.original:
        for number in range(1, config.augment.renditions + 1):
            id = _rendition_id(first.id, number)
            augmentation = draw_heard(config.augment, rng_for(config.seed, id, "augment"))
            examples.append(_plan(choice, config, id, augmentation, False))
    return examples


def _rendition_id(id: str, number: int) -> str:
    """Two hyphens, which no source gives; of an id that leaves no room for them, a digest stands for the end."""
    suffix = f"--r{number}"
    if len(id) + len(suffix) <= MAX_ID:
        return id + suffix
    digest = hashlib.sha256(id.encode()).hexdigest()[:16]
    return f"{id[: MAX_ID - len(digest) - len(suffix)]}{digest}{suffix}"


def _plan(choice: Choice, config: PrepConfig, id: str, augmentation: Augmentation, files_augmented: bool) -> PlanRow:
    stems, first = choice.stems, choice.stems[0].rows[0]
    rendition = id != first.id
    gains = () if rendition else _known_gains(stems, choice.samples, config)
    drawn = [draw_stem_gain_db(config.augment, rng_for(config.seed, id, f"stem_gain:{stem.name}")) for stem in stems]
    mixes, dropped = _mixes(choice, config, id)
    return PlanRow(
        id=id,
        original=first.original or first.id,
        augmentation=augmentation.to_json(),
        files_augmented=files_augmented,
        split=first.split,
        corpus=first.corpus,
        licence=first.licence,
        shard=0,
        samples=augmented_length(choice.samples, augmentation) if rendition else choice.samples,
        stems=tuple(stem.name for stem in stems),
        paths=tuple(tuple(row.path for row in stem.rows) for stem in stems),
        digests=tuple(tuple(row.digest for row in stem.rows) for stem in stems),
        programs=tuple(stem.rows[0].program for stem in stems),
        instruments=tuple(stem.instrument for stem in stems),
        gains_db=gains,
        drawn_gains_db=tuple(drawn) if rendition else (0.0,) * len(stems),
        targets=choice.targets,
        contexts=choice.contexts,
        mixes=mixes,
        offsets_db=tuple(_offset_db([stems[i].name for i in members], id, config) for members in mixes),
        dropped_mixes=dropped,
    )


def _known_gains(stems: tuple[Candidate, ...], samples: int, config: PrepConfig) -> tuple[float, ...]:
    """The gains, where each stem is one file that is stored whole: then the scan's measures are the stems'."""
    if any(len(stem.rows) > 1 or stem.samples > samples for stem in stems):
        return ()
    return tuple(gains_of(stems, config.loudness))


def _mixes(choice: Choice, config: PrepConfig, id: str) -> tuple[tuple[Members, ...], int]:
    """The mixes that sound together with a target outside them, and how many of those drawn never do."""
    drawn = draw_mixes(
        [stem.name for stem in choice.stems],
        choice.targets,
        choice.contexts,
        config.mixing.subsets_per_target,
        config.mixing.size_law,
        partial(rng_for, config.seed, id),
    )
    heard = tuple(members for members in drawn if choice.heard_with_a_target(members))
    return heard, len(drawn) - len(heard)


def _offset_db(members: list[str], id: str, config: PrepConfig) -> float:
    """Uniform within the configured range, keyed by the members' names: other mixes do not change it."""
    most = config.loudness.mix_offset_db
    return float(rng_for(config.seed, id, "mix_level:" + "+".join(members)).uniform(-most, most))


def _shard_count(rows: list[PlanRow], config: PrepConfig, bytes_per_sample: float) -> int:
    """By size; depends on the total only, so that a few songs more move nothing until a shard is full."""
    total = sum((len(row.stems) + len(row.mixes)) * row.samples * bytes_per_sample for row in rows)
    return min(len(rows), max(1, round(total / (config.shards.size_mb * 1e6))))


def plan_digest(rows: Sequence[PlanRow], config: PrepConfig) -> str:
    """Of contents and settings; where the files lie does not count."""
    settings = config.model_dump(include={"seed", "instruments", "activity", "augment", "loudness", "mixing", "audio"})
    described = [{k: v for k, v in asdict(row).items() if k != "paths"} for row in rows]
    text = json.dumps([PLAN_VERSION, VERSION, settings, described], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_plan(plan: Plan, path: Path, header: Mapping[str, Any]) -> None:
    """plan.parquet, a row an example; and what dataset.json will say of all, for whoever completes the build."""
    columns = [field.name for field in fields(PlanRow)]
    table = pd.DataFrame([asdict(row) for row in plan.rows], columns=columns)
    table.attrs["header"], table.attrs["shards"] = json.dumps(header), json.dumps(plan.shards)
    write_table(table, path)


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """dataset.json's header, and the number of shards by split, as the plan has them. Raises PrepError."""
    try:
        attrs = pd.read_parquet(path).attrs
        return json.loads(attrs["header"]), json.loads(attrs["shards"])
    except (OSError, ValueError, KeyError) as error:
        raise PrepError(f"{path} is not a plan that can be read. Run the same `prep build` again.") from error


def read_plan(path: Path) -> list[PlanRow]:
    """The rows of plan.parquet. Raises PrepError where it is none of this release."""
    try:
        table = pd.read_parquet(path, columns=[field.name for field in fields(PlanRow)])
    except (OSError, ValueError) as error:
        raise PrepError(f"{path} is not a plan that can be read. Run the same `prep build` again.") from error
    return [PlanRow(**{str(name): _plain(value) for name, value in row.items()}) for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """Parquet's arrays as tuples."""
    return tuple(_plain(item) for item in value.tolist()) if hasattr(value, "tolist") else value
