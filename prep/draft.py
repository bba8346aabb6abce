"""What would be built: a corpus scanned and planned, before anything is encoded. A dry run ends here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

import shards
from prep.codecs import CodecIdentity, load_codec
from prep.config import PrepConfig
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.example import Built, Job, build_example
from prep.ledger import LedgerRow, make_ledger
from prep.lock import LOCK
from prep.multitrack import Multitrack
from prep.plan import Plan, PlanRow, make_plan
from prep.reuse import known_streams, stream_digests
from prep.scan import ScanJob, ScanRow, Target, given_up, left_out, read_scan, scan, scan_key, write_scan

# what a SIGKILL may cost of a scan; more where writing it down takes more than a twentieth of the time
KEEP_EVERY_S = 10.0


@dataclass(frozen=True)
class Corpus:
    """What a source found below `root`."""

    name: str
    root: Path
    multitracks: list[Multitrack]
    rejects: list[tuple[Path, Reject]] = field(default_factory=list)


@dataclass(frozen=True)
class Draft:
    """What would be built, and where: `folder` is the generation's."""

    root: Path
    out: Path
    config: PrepConfig
    identity: CodecIdentity
    plan: Plan
    ledger: list[LedgerRow]
    scan_s: float = 0.0

    @property
    def target(self) -> Target:
        return target_of(self.identity, self.config)

    @property
    def generation(self) -> str:
        return f"{self.plan.digest}-{self.identity.name}-{self.identity.digest}"

    @property
    def folder(self) -> Path:
        return self.out / "generations" / self.generation

    @property
    def shards(self) -> dict[str, list[str]]:
        """Names by split."""
        return {split: shards.shard_names(split, number) for split, number in self.plan.shards.items()}

    def missing(self) -> dict[str, list[PlanRow]]:
        """The shards that are not finished, with their examples."""
        names = [name for split in self.shards.values() for name in split if not shards.finished(self.folder / name)]
        groups: dict[str, list[PlanRow]] = {name: [] for name in names}
        for row in self.plan.rows:
            name = shards.shard_names(row.split, row.shard + 1)[-1]
            if name in groups:
                groups[name].append(row)
        return groups

    def jobs(self, rows: list[PlanRow]) -> list[Job]:
        """What is left to do for these rows, given what complete generations hold."""
        known = known_streams(self.out) if rows else {}
        digests = ((row, stream_digests(row, self.config, self.identity)) for row in rows)
        return [Job(row, {i: known[d] for i, d in enumerate(streams) if d in known}) for row, streams in digests]

    def worker(self) -> Callable[[Job], Built]:
        """What is done with each job."""
        return partial(build_example, root=self.root, scratch=self.folder, config=self.config, target=self.target)


def target_of(identity: CodecIdentity, config: PrepConfig) -> Target:
    return Target(identity.sample_rate, identity.channels, config.audio, config.limits)


def survey(
    corpus: Corpus, out: Path, config: PrepConfig, workers: int, progress: bool = True, rescan: bool = False
) -> Draft:
    """Scan and plan. Writes scan.parquet and nothing else."""
    check_out(out)
    started = time.monotonic()
    identity = load_codec(config.codec).identity
    rows = _scan(corpus, out, target_of(identity, config), workers, progress, rescan)
    return replace(draft_of(rows, corpus.root, out, config, identity), scan_s=time.monotonic() - started)


def draft_of(rows: list[ScanRow], root: Path, out: Path, config: PrepConfig, identity: CodecIdentity) -> Draft:
    """Plan what was scanned."""
    plan = make_plan(rows, config, bytes_per_sample(identity))
    return Draft(root, out, config, identity, plan, make_ledger(rows, plan))


def bytes_per_sample(identity: CodecIdentity) -> float:
    """What one sample of one stream comes to in a shard."""
    return 2 * identity.dim / identity.hop


def check_out(out: Path) -> Path:
    """OUT, made where it was not; refuses a folder that holds something else, or that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepError(f"--out {out} cannot be made ({error.strerror}). Name a folder that you may write.") from error
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
        raise PrepError(f"--out {out} cannot be read and written. Name a folder that you may write.")
    # a killed build may leave the beginning of its first file
    there = [path for path in out.iterdir() if path.suffix != ".part" and path.name != LOCK]
    if there and not (out / "scan.parquet").is_file():
        raise PrepError(f"--out {out} holds files that are not a dataset's. Name an empty or a new folder.")
    return out


def _scan(corpus: Corpus, out: Path, target: Target, workers: int, progress: bool, rescan: bool) -> list[ScanRow]:
    key = scan_key(target)
    earlier = read_scan(out / "scan.parquet", key)

    def run(function: Callable[[ScanJob], ScanRow], jobs: list[ScanJob]) -> Iterator[ScanRow]:
        quiet = not (progress and jobs)
        return iter(tqdm(local(function, jobs, workers, given_up), "scan", len(jobs), unit="file", disable=quiet))

    rows: list[ScanRow] = []
    rejected = left_out(corpus.rejects, corpus.root, corpus.name)

    def keep() -> None:
        # also what an interruption leaves, and what this run did not ask for: it need not be decoded again
        asked = {row.path for row in rows + rejected}
        everything = rows + rejected + [row for row in earlier if row.path not in asked]
        if everything != earlier:
            write_scan(everything, out / "scan.parquet", key)

    try:
        with closing(scan(corpus.multitracks, corpus.root, target, [] if rescan else earlier, run)) as scanned:
            _gather(scanned, rows, keep)
    except KeyboardInterrupt as stop:
        files = sum(len(multitrack.stems) for multitrack in corpus.multitracks)
        stop.add_note(f"{len(rows)} of {files} files are scanned")
        raise
    finally:
        keep()
    return rows + rejected


def _gather(scanned: Iterator[ScanRow], rows: list[ScanRow], keep: Callable[[], None]) -> None:
    """Into `rows`; calls `keep` now and then."""
    due = time.monotonic() + KEEP_EVERY_S
    for row in scanned:
        rows.append(row)
        if (began := time.monotonic()) > due:
            keep()
            now = time.monotonic()
            due = now + max(KEEP_EVERY_S, 20 * (now - began))
