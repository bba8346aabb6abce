"""`prep build --dry-run`: what a build would give, and how long it would take.

Counts and bytes come from the plan, exactly. Time, and the bytes of kept audio, come from a sample: the beginnings of
some of the examples are built with as many workers as the build would have, and thrown away. The codec is certified as
the build would, which takes as long.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prep.certified import certificate_of
from prep.codecs import CodecIdentity
from prep.draft import Draft
from prep.job import Built, Job
from prep.ledger import check
from prep.plan import PlanRow
from prep.report import ledger_lines
from prep.stages.activity import LEVELS_RATE_HZ

# so much of each sampled example is built
SAMPLE_S = 20.0
SAMPLES_A_WORKER = 3
# tar pads each member, behind a header, to such blocks, and a whole shard to so many of them
_BLOCK, _RECORD = 512, 10240


@dataclass(frozen=True)
class Estimate:
    """Seconds of wall time for what is left to build, how many examples were sampled for it, how many seconds of it
    certify the codec, and the bytes of the audio that is kept."""

    build_s: float
    sampled: int
    certify_s: float
    kept_bytes: float


def bytes_of(row: PlanRow, identity: CodecIdentity) -> int:
    """What an example comes to in a tar. Only the json is guessed: a line or so for each stem and stream."""
    stems, mixes = len(row.stems), len(row.mixes)
    frames = math.ceil(row.samples / identity.hop)
    levels = math.ceil(row.samples * LEVELS_RATE_HZ / identity.sample_rate)
    json = 400 + len(row.augmentation) + 30 * stems + 50 * (stems + mixes)
    arrays = (stems * frames * identity.dim, mixes * frames * identity.dim, (stems + mixes) * levels)
    return sum(_BLOCK + _up(size, _BLOCK) for size in (json, *(128 + 2 * values for values in arrays)))


def bytes_in(rows: Iterable[PlanRow], identity: CodecIdentity) -> int:
    """What shards of these examples come to."""
    shards: Counter[tuple[str, int]] = Counter()
    for row in rows:
        shards[row.split, row.shard] += bytes_of(row, identity)
    return sum(_up(size + 2 * _BLOCK, _RECORD) for size in shards.values())


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def estimate(draft: Draft, workers: int) -> Estimate:
    """Raises PrepError where a source has changed since the scan, and where the codec fails on the corpus."""
    started = time.monotonic()
    certificate_of(draft)
    certify_s = draft.admit_s + time.monotonic() - started  # nothing of it is kept, so the build does it again
    unkept = draft.unkept()
    jobs = draft.jobs([row for group in {**draft.missing(), **unkept}.values() for row in group], unkept)
    left = [job for job in jobs if job.missing or job.mixed]
    if not left:
        return Estimate(certify_s, 0, certify_s, 0)
    # evenly over the corpus, since songs that stand together are alike
    count = min(len(left), SAMPLES_A_WORKER * workers)
    chosen = [left[i * len(left) // count] for i in range(count)]
    built, wall_s = _sampled(draft, chosen, workers)
    # nothing is copied: what looks so is the codec's loading, once a worker
    each_s = sum(spent for each in built for stage, spent in each.seconds.items() if stage != "copy")
    each_s /= min(workers, count)
    # what workers wait for, or, where mixing runs ahead of encoding, what they do at once
    idle_s, at_once = max(0.0, wall_s - each_s), min(1.0, wall_s / each_s)
    busy_s = at_once * _busy_s(left, chosen, built, draft.identity.sample_rate) / min(workers, len(left))
    streams = sum((len(row.stems) + len(row.mixes)) * row.samples for row in draft.plan.rows)
    kept_samples = sum(each.stream_s for each in built) * draft.identity.sample_rate
    kept_bytes = streams * sum(flac.size for each in built for flac in each.flacs) / kept_samples
    return Estimate(certify_s + idle_s + busy_s, count, certify_s, kept_bytes)


def _sampled(draft: Draft, jobs: list[Job], workers: int) -> tuple[list[Built], float]:
    """Their beginnings, built as if nothing were known, since what is, is of the whole; and the seconds of wall time
    that it took."""
    most = round(SAMPLE_S * draft.identity.sample_rate)
    cut = [replace(job.row, samples=min(job.row.samples, most)) for job in jobs]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        worker = replace(draft, out=Path(scratch))
        worker.folder.mkdir(parents=True)
        built = list(worker.built([Job(row, keep=draft.config.keep_audio) for row in cut], workers))
    return built, time.monotonic() - started


def _busy_s(left: list[Job], chosen: list[Job], built: list[Built], rate: int) -> float:
    """Seconds of work in `left` at the speed of the sample, in which files were read whole and streams cut."""
    seconds: Counter[str] = Counter()
    for each in built:
        seconds.update(each.seconds)
    read = [(len(job.row.stems) * job.row.samples, job) for job in chosen]
    read_s = seconds["read"] / sum(samples for samples, _ in read)
    augment_s = seconds["augment"] / max(1, sum(samples for samples, job in read if _is_augmented(job)))
    streams = sum(each.stream_s for each in built) * rate
    # a sample has more padding than a build
    own = 1 - sum(each.padding_frames for each in built) / sum(each.ran_frames for each in built)
    encode_s = own * seconds["encode"] / streams
    make_s = sum(seconds[stage] for stage in ("mix", "measure", "keep")) / streams
    return sum(
        job.row.samples
        * (
            len(job.needed) * (read_s + augment_s * _is_augmented(job))
            + len(job.reread) * read_s
            + len(job.mixed) * make_s
            + len(job.missing) * encode_s
        )
        for job in left
    )


def _is_augmented(job: Job) -> bool:
    return job.row.augmentation != "{}" and not job.row.files_augmented


def lines(draft: Draft, workers: int) -> list[str]:
    """For a person. Raises PrepError where a build would stop, too."""
    check(draft.ledger, draft.config, "the ledger of a build")
    rate = draft.identity.sample_rate
    told = [f"{draft.out}: would be built as generation {draft.generation} (only the scan is kept)"]
    for split, shards in draft.shards.items():
        rows = [row for row in draft.plan.rows if row.split == split]
        told.append(f"  {split:<11}{_counts(rows, draft.identity, rate)}, {len(shards)} shards")
    told.append(f"  {'in all':<11}{_counts(draft.plan.rows, draft.identity, rate)}")
    told += ledger_lines(draft.ledger, draft.plan)
    guess = estimate(draft, workers)
    if guess.kept_bytes:
        told.append(f"  kept audio about {guess.kept_bytes / 1e6:.1f} MB of FLAC, as small as the sample's")
    certified = f"; {guess.certify_s:.0f} s of it to certify the codec" if guess.certify_s >= 1 else ""
    if guess.sampled:
        sample = f"measured on the first {SAMPLE_S:g} s of {guess.sampled} examples"
        told.append(f"  about {guess.build_s:.0f} s with {workers} workers, after the scan ({sample}){certified}")
    else:
        told.append(f"  nothing to encode: all streams are there{certified.replace(' of it', '')}")
    return told


def _counts(rows: Iterable[PlanRow], identity: CodecIdentity, rate: int) -> str:
    rows = list(rows)
    renditions = sum(row.id != row.original for row in rows)
    stems, mixes = sum(len(row.stems) for row in rows), sum(len(row.mixes) for row in rows)
    hours = sum((len(row.stems) + len(row.mixes)) * row.samples for row in rows) / rate / 3600
    size = bytes_in(rows, identity) / 1e6
    return (
        f"{len(rows) - renditions:>5} multitracks + {renditions} renditions, {stems} stems + {mixes} mixes "
        f"({hours:.2f} h of streams), {sum(row.pairs for row in rows)} pairs, {size:.1f} MB"
    )
