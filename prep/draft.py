"""What would be built: a corpus scanned and planned, before anything is encoded. A dry run ends here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import shards
from prep.certified import admit
from prep.codecs import CodecIdentity, load_codec
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.example import build_examples
from prep.job import Built, Job, bundled
from prep.kept import Flac, kept_in, kept_of, made_of
from prep.ledger import LedgerRow, make_ledger
from prep.lock import LOCK
from prep.multitrack import Multitrack
from prep.names import printable
from prep.plan import Plan, PlanRow, make_plan
from prep.reuse import Known, audio_digests, known_in, shard_digest, stream_digests
from prep.scan import ScanJob, ScanRow, Target, given_up, left_out, read_scan, scan, scan_key, write_scan

# what a SIGKILL may cost of a scan; more where writing it down takes more than a twentieth of the time
KEEP_EVERY_S = 10.0
# of the codec, for a bundle of examples, where a call takes several streams: in the last calls of each bundle there are
# rows that are nobody's, as many frames as one call takes, or as five, where examples have two streams each
BUNDLE_CALLS = 256


@dataclass(frozen=True)
class Corpus:
    """What a source found below `root`."""

    name: str
    root: Path
    multitracks: list[Multitrack]
    rejects: list[tuple[Path, Reject]] = field(default_factory=list)


@dataclass(frozen=True)
class Draft:
    """What would be built, and where: `folder` is the generation's, `kept_folder` its plan's kept audio's."""

    root: Path | None  # of the corpus; none where all audio is kept
    out: Path
    config: PrepConfig
    identity: CodecIdentity
    plan: Plan
    ledger: list[LedgerRow]
    device: Device = CPU
    scan_s: float = 0.0
    admit_s: float = 0.0  # of these, to certify the codec on made audio; a dry run leaves nothing of that

    @property
    def target(self) -> Target:
        return target_of(self.identity, self.config)

    @property
    def generation(self) -> str:
        kept = "-kept" if self.config.keep_audio else ""
        return f"{self.plan.digest}-{self.identity.name}-{self.identity.digest}{kept}"

    @property
    def folder(self) -> Path:
        return self.out / "generations" / self.generation

    @property
    def kept_folder(self) -> Path:
        return self.out / "audio" / self.plan.digest

    @property
    def shards(self) -> dict[str, list[str]]:
        """Names by split."""
        return {split: shards.shard_names(split, number) for split, number in self.plan.shards.items()}

    @cached_property
    def groups(self) -> dict[str, list[PlanRow]]:
        """Every shard's examples, by its name."""
        groups: dict[str, list[PlanRow]] = {name: [] for names in self.shards.values() for name in names}
        for row in self.plan.rows:
            groups[shards.shard_names(row.split, row.shard + 1)[-1]].append(row)
        return groups

    @cached_property
    def audio(self) -> dict[str, tuple[str, ...]]:
        """Of each example, the digests of its streams' audio."""
        return {row.id: audio_digests(row, self.config, self.target) for row in self.plan.rows}

    @cached_property
    def made_of(self) -> dict[str, str]:
        """Of each shard the digest of all that decides its bytes."""
        return {
            name: shard_digest(rows, [stream_digests(self.audio[row.id], self.identity) for row in rows])
            for name, rows in self.groups.items()
        }

    def missing(self) -> dict[str, list[PlanRow]]:
        """The shards that are not finished, with their examples."""
        return {name: rows for name, rows in self.groups.items() if not self._is_finished(name)}

    @cached_property
    def audio_made_of(self) -> dict[str, str]:
        """Of each shard whose audio is to be kept, what its tar of FLACs is made of."""
        groups = self.groups if self.config.keep_audio else {}
        return {name: made_of({row.id: self.audio[row.id] for row in rows}) for name, rows in groups.items() if rows}

    def unkept(self) -> dict[str, list[PlanRow]]:
        """The shards whose audio is to be kept, and is not, with their examples."""
        wanted = self.audio_made_of.items()
        return {name: self.groups[name] for name, made in wanted if kept_of(self.kept_folder / name) != made}

    def _is_finished(self, name: str) -> bool:
        receipt = shards.finished(self.folder / name)
        return receipt is not None and receipt.made_of == self.made_of[name]

    def jobs(self, rows: list[PlanRow], unkept: Collection[str] = ()) -> list[Job]:
        """What is left to do for these rows, given what complete generations hold. `unkept`: shards whose audio is to
        be kept."""
        known = known_in(self.out) if rows else Known()
        kept = kept_in(self.out) if rows and self.config.keep_audio else {}
        keep = {row.id for name in unkept for row in self.groups[name]}
        return [replace(self._job(row, known, kept), keep=row.id in keep) for row in rows]

    def _job(self, row: PlanRow, known: Known, kept: dict[str, Flac]) -> Job:
        audio = self.audio[row.id]
        streams = stream_digests(audio, self.identity)
        return Job(
            row,
            {i: known.streams[digest] for i, digest in enumerate(streams) if digest in known.streams},
            {i: known.audio[digest] for i, digest in enumerate(audio) if digest in known.audio},
            {i: kept[digest] for i, digest in enumerate(audio) if digest in kept},
        )

    def built(self, jobs: Sequence[Job], workers: int) -> Iterator[Built]:
        """Their examples, in order."""
        hop, device, most_frames = self.identity.hop, self.device, 0
        if device.batch_streams > 1:
            frames = sum(job.frames(hop, job.missing) for job in jobs)
            # large ones for little padding, but two at least for each worker; no byte hangs on it
            most_frames = min(BUNDLE_CALLS * device.batch_frames, frames // (2 * workers))
        make = partial(
            build_examples,
            root=self.root,
            scratch=self.folder,
            config=self.config,
            target=self.target,
            identity=self.identity,
            device=device,
        )
        for examples in local(make, list(bundled(jobs, hop, most_frames)), workers):
            yield from examples


def target_of(identity: CodecIdentity, config: PrepConfig) -> Target:
    return Target(identity.sample_rate, identity.channels, config.audio, config.limits)


def survey(
    corpus: Corpus,
    out: Path,
    config: PrepConfig,
    workers: int,
    progress: bool = True,
    rescan: bool = False,
    device: Device = CPU,
) -> Draft:
    """Scan and plan. Writes scan.parquet and nothing else."""
    _check_same(corpus, check_out(out))
    started = time.monotonic()
    codec = load_codec(config.codec)
    before = time.monotonic()
    admit(codec, out)
    admit_s, identity = time.monotonic() - before, codec.identity
    rows = _scan(corpus, out, target_of(identity, config), workers, progress, rescan)
    draft = draft_of(rows, corpus.root, out, config, identity, device)
    return replace(draft, scan_s=time.monotonic() - started, admit_s=admit_s)


def draft_of(
    rows: list[ScanRow], root: Path, out: Path, config: PrepConfig, identity: CodecIdentity, device: Device = CPU
) -> Draft:
    """Plan what was scanned."""
    plan = make_plan(rows, config, bytes_per_sample(identity))
    return Draft(root, out, config, identity, plan, make_ledger(rows, plan), device)


def bytes_per_sample(identity: CodecIdentity) -> float:
    """What one sample of one stream comes to in a shard."""
    return 2 * identity.dim / identity.hop


def check_out(out: Path) -> Path:
    """OUT, made where it was not; refuses a folder that holds something else, or that cannot be written."""
    if printable(str(out)) != str(out):
        raise PrepError(
            f"--out {printable(str(out))} is not UTF-8, which tables cannot be read from. Name another one."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepError(f"--out {out} cannot be made ({error.strerror}). Name a folder that you may write.") from error
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
        raise PrepError(f"--out {out} cannot be read and written. Name a folder that you may write.")
    # a killed build may leave the beginning of its first file
    there = [path for path in out.iterdir() if path.suffix != ".part" and not path.name.startswith(LOCK)]
    if there and not (out / "scan.parquet").is_file():
        raise PrepError(f"--out {out} holds files that are not a dataset's. Name an empty or a new folder.")
    return out


def _check_same(corpus: Corpus, out: Path) -> None:
    """Refuse a folder that holds the dataset of other music: what it has would neither be used nor missed."""
    try:
        ledger = pd.read_parquet(out / "ledger.parquet", columns=["id", "corpus"])
    except (OSError, ValueError):
        return
    ids = {multitrack.id for multitrack in corpus.multitracks}
    if ids and len(ledger) and ids.isdisjoint(ledger["id"]):
        was = f"{', '.join(sorted(set(ledger['corpus'])))}: {ledger['id'].iloc[0]}"
        raise PrepError(
            f"--out {out} holds a dataset of {ledger['id'].nunique()} multitracks ({was}, ...), "
            f"none of which is among the {len(ids)} of {corpus.name} at {corpus.root} ({min(ids)}, ...). "
            "Name another --out, or the --root that it was built from."
        )


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
