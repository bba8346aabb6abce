"""Decodes each source once and writes down all that the plan needs: digest, length, loudness, peak, levels.

A row of scan.parquet is a file: one that holds a stem, or one that the source left out. What comes after reads the
scan and no audio. A file whose size, mtime and inode are those of the last scan is not opened again; where one of them
has changed and the digest has not, it is not decoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prep.audio import content_digest, expand, read_audio, resample
from prep.config import Audio, Limits
from prep.engines import Lost, within
from prep.errors import Reject
from prep.multitrack import Multitrack, Stem
from prep.names import printable
from prep.stages.activity import levels_db
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs, noted, true_peak
from shards.generations import atomic

VERSION = 2  # raise it when the measures below change


@dataclass(frozen=True)
class ScanRow:
    """One source file. Measures are of the audio as it will be encoded: at the codec's rate and channels, gain 0 dB."""

    id: str
    split: str
    corpus: str
    licence: str
    stem: str
    path: str  # relative to the root
    program: int
    instrument: str
    size: int
    mtime_ns: int
    inode: int
    original: str = ""  # of a rendition
    augmentation: str = "{}"
    digest: str = ""
    rate: int = 0
    channels: int = 0
    samples: int = 0  # at the codec's rate
    peak: float = 0.0
    true_peak: float = 0.0  # between the samples, BS.1770-4 Annex 2
    loudness_lufs: float = SILENCE_LUFS
    levels: bytes = b""  # float16, 50 Hz, dB
    reason: str = ""  # empty: usable
    detail: str = ""

    @property
    def levels_db(self) -> np.ndarray:
        return np.frombuffer(self.levels, np.float16).astype(np.float32)


@dataclass(frozen=True)
class Target:
    """What sources are brought to before they are measured and encoded."""

    rate: int
    channels: int
    audio: Audio
    limits: Limits = field(default_factory=Limits)


def load_stem(path: Path, target: Target) -> tuple[np.ndarray, int, int] | Reject:
    """(codec channels, samples at the codec's rate), and the source's rate and channels; or the reason why not."""
    read = read_audio(path, target.limits.decode_gb * 1e9)
    if isinstance(read, Reject):
        return read
    audio, rate = read
    if rate != target.rate and not target.audio.resample:
        return Reject("rate", f"{rate} Hz, the codec's rate is {target.rate} Hz; allow it: --set audio.resample=true")
    if audio.shape[1] > target.audio.max_length_s * rate:
        length_s = audio.shape[1] / rate
        return Reject("too_long", f"{length_s:.0f} s, audio.max_length_s is {target.audio.max_length_s:g}")
    expanded = expand(resample(audio, rate, target.rate), target.channels)
    return expanded if isinstance(expanded, Reject) else (expanded, rate, audio.shape[0])


def reading(path: Path, target: Target) -> AbstractContextManager[None]:
    """Around whatever reads a source."""
    return within(target.limits.decode_s, str(path), "limits.decode_s")


@dataclass(frozen=True)
class ScanJob:
    """A file to be read, its row as far as it is known without that, and the last scan's."""

    row: ScanRow
    path: Path
    known: ScanRow | None

    @property
    def id(self) -> str:
        return self.row.path


def scan_stem(job: ScanJob, target: Target) -> ScanRow:
    with reading(job.path, target):
        return _scan_stem(job, target)


def given_up(job: ScanJob, lost: Lost) -> ScanRow:
    return replace(job.row, reason=lost.reject.reason, detail=lost.reject.detail)


def _scan_stem(job: ScanJob, target: Target) -> ScanRow:
    try:
        digest = content_digest(job.path)
    except OSError as error:
        return replace(job.row, reason="unreadable", detail=str(error.strerror))
    if job.known and job.known.digest == digest and job.known.reason not in _OF_LIMITS:
        return _measured(job.row, job.known)
    return _measure(replace(job.row, digest=digest), job.path, target)


def _measure(row: ScanRow, path: Path, target: Target) -> ScanRow:
    loaded = load_stem(path, target)
    if isinstance(loaded, Reject):
        return replace(row, reason=loaded.reason, detail=loaded.detail)
    audio, rate, channels = loaded
    return replace(
        row,
        rate=rate,
        channels=channels,
        samples=audio.shape[1],
        peak=max(float(audio.max()), -float(audio.min())),
        true_peak=true_peak(audio, target.rate),
        loudness_lufs=noted(integrated_lufs(audio, target.rate)),
        levels=levels_db(audio, target.rate).astype(np.float16).tobytes(),
    )


def _unread(multitrack: Multitrack, stem: Stem, root: Path) -> ScanRow:
    try:
        stat = stem.path.stat()
        size, mtime_ns, inode = stat.st_size, stat.st_mtime_ns, stat.st_ino
    except OSError:
        size = mtime_ns = inode = 0
    return ScanRow(
        id=multitrack.id,
        split=multitrack.split,
        corpus=multitrack.corpus,
        licence=multitrack.licence,
        stem=stem.name,
        path=relative(stem.path, root),
        program=stem.program,
        instrument=stem.instrument,
        size=size,
        mtime_ns=mtime_ns,
        inode=inode,
        original=multitrack.original,
        augmentation=multitrack.augmentation,
    )


def left_out(rejects: Iterable[tuple[Path, Reject]], root: Path, corpus: str) -> list[ScanRow]:
    """Rows for what the source itself left out, so that the ledger accounts for it."""
    nothing: dict[str, Any] = {
        "split": "",
        "stem": "",
        "program": -1,
        "instrument": "Unknown",
        "size": 0,
        "mtime_ns": 0,
        "inode": 0,
    }
    return [
        ScanRow(
            id=_track_of(path, root),
            path=relative(path, root),
            corpus=corpus,
            licence="unknown",
            reason=reject.reason,
            detail=reject.detail,
            **nothing,
        )
        for path, reject in rejects
    ]


def scan(
    multitracks: list[Multitrack],
    root: Path,
    target: Target,
    earlier: list[ScanRow],
    run: Callable[[Callable[[ScanJob], ScanRow], list[ScanJob]], Iterator[ScanRow]],
) -> Generator[ScanRow, None, None]:
    """The row of each stem, in order; the `earlier` one where it holds. `run(function, items)` is the engine."""
    known = {row.path: row for row in earlier if row.stem}  # not what the source left out
    unread = [(stem.path, _unread(multitrack, stem, root)) for multitrack in multitracks for stem in multitrack.stems]
    jobs = [ScanJob(row, path, known.get(row.path)) for path, row in unread if not _unchanged(known, row)]
    scanned = run(partial(scan_stem, target=target), jobs)
    for _, row in unread:
        yield _measured(row, known[row.path]) if _unchanged(known, row) else next(scanned)


_FILE = ("size", "mtime_ns", "inode")
# another limit may let it pass
_OF_LIMITS = ("gave_up", "crashed", "too_much_memory")
_MEASURES = (
    "digest",
    "rate",
    "channels",
    "samples",
    "peak",
    "true_peak",
    "loudness_lufs",
    "levels",
    "reason",
    "detail",
)


def _unchanged(known: Mapping[str, ScanRow], now: ScanRow) -> bool:
    """A file that could not be read is looked at again: the next time it may be readable."""
    row = known.get(now.path)
    if row is None or not row.digest or row.reason in _OF_LIMITS:
        return False
    return all(getattr(row, name) == getattr(now, name) for name in _FILE)


def _measured(row: ScanRow, known: ScanRow) -> ScanRow:
    """The row with the measures that are known of the same content."""
    return replace(row, **{name: getattr(known, name) for name in _MEASURES})


def _track_of(path: Path, root: Path) -> str:
    """The multitrack that a file or folder below the root belongs to: the part of its path above `stems`, or itself."""
    parts = Path(relative(path, root)).parts
    return (parts[parts.index("stems") - 1] if "stems" in parts[1:] else path.name).lower()


def relative(path: Path, root: Path) -> str:
    """As text that any table takes: of a name that is not UTF-8, its bytes written out."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())


def write_scan(rows: list[ScanRow], path: Path, key: str) -> None:
    """scan.parquet; `key` names the target that the measures were made for."""
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(ScanRow)])
    table.attrs["scan"] = key
    write_table(table, path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Parquet, whole or not at all."""
    with atomic(path) as file:
        table.to_parquet(file, index=False)


def read_scan(path: Path, key: str) -> list[ScanRow]:
    """The rows of the last scan; none where there was none, or where it was made for something else."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError):
        return []
    if table.attrs.get("scan") != key or list(table.columns) != [field.name for field in fields(ScanRow)]:
        return []
    return [ScanRow(**{str(name): value for name, value in row.items()}) for row in table.to_dict("records")]


def scan_key(target: Target) -> str:
    """What decides the measures besides the files."""
    audio = target.audio.model_dump_json(include={"resample", "max_length_s"})
    return f"scan {VERSION}, {target.rate} Hz, {target.channels} channels, {audio}"
