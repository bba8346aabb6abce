"""Decodes each source once and writes down all that the plan needs: digest, length, loudness, peak, levels.

A row of scan.parquet is a stem, or a file that the source left out. What comes after reads the scan and no audio.
A multitrack whose files have the size, mtime and inode of the last scan is not decoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prep.audio import content_digest, expand, read_audio, resample
from prep.config import Audio
from prep.errors import Reject
from prep.multitrack import Multitrack, Stem
from prep.stages.activity import levels_db
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs
from shards.generations import atomic

VERSION = 1  # raise it when the measures below change


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
    digest: str = ""
    rate: int = 0
    channels: int = 0
    samples: int = 0  # at the codec's rate
    peak: float = 0.0
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


def load_stem(path: Path, target: Target) -> tuple[np.ndarray, int, int] | Reject:
    """(codec channels, samples at the codec's rate), and the source's rate and channels; or the reason why not."""
    read = read_audio(path)
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


def scan_multitrack(multitrack: Multitrack, root: Path, target: Target) -> list[ScanRow]:
    """A row for each stem."""
    return [_scan_stem(multitrack, stem, root, target) for stem in multitrack.stems]


def _scan_stem(multitrack: Multitrack, stem: Stem, root: Path, target: Target) -> ScanRow:
    row = _unread(multitrack, stem, root)
    try:
        digest = content_digest(stem.path)
    except OSError as error:
        return _with(row, reason="unreadable", detail=str(error.strerror))
    loaded = load_stem(stem.path, target)
    if isinstance(loaded, Reject):
        return _with(row, digest=digest, reason=loaded.reason, detail=loaded.detail)
    audio, rate, channels = loaded
    return _with(
        row,
        digest=digest,
        rate=rate,
        channels=channels,
        samples=audio.shape[1],
        peak=float(np.abs(audio).max()),
        loudness_lufs=integrated_lufs(audio, target.rate),
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
        path=_relative(stem.path, root),
        program=stem.program,
        instrument=stem.instrument,
        size=size,
        mtime_ns=mtime_ns,
        inode=inode,
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
            path=_relative(path, root),
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
    run: Callable[[Callable[[Multitrack], list[ScanRow]], list[Multitrack]], Iterator[list[ScanRow]]],
) -> Iterator[list[ScanRow]]:
    """The rows of each multitrack, in order; `earlier` rows where they hold. `run(function, items)` is the engine."""
    known: dict[str, list[ScanRow]] = {}
    for row in earlier:
        if row.stem:  # not what the source left out
            known.setdefault(row.id, []).append(row)
    fresh = [m for m in multitracks if not _holds(known.get(m.id, []), m, root)]
    scanned = run(partial(scan_multitrack, root=root, target=target), fresh)
    waiting = {m.id for m in fresh}
    for multitrack in multitracks:
        yield next(scanned) if multitrack.id in waiting else known[multitrack.id]


_STATED = ("id", "split", "corpus", "licence", "stem", "path", "program", "instrument", "size", "mtime_ns", "inode")


def _holds(rows: list[ScanRow], multitrack: Multitrack, root: Path) -> bool:
    """Whether the rows still describe the multitrack's files."""
    now = [_unread(multitrack, stem, root) for stem in multitrack.stems]
    return [_stated(row) for row in rows] == [_stated(row) for row in now]


def _stated(row: ScanRow) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in _STATED)


def _with(row: ScanRow, **changes: Any) -> ScanRow:
    return ScanRow(**{**asdict(row), **changes})


def _track_of(path: Path, root: Path) -> str:
    """The multitrack that a file or folder below the root belongs to: the part of its path above `stems`, or itself."""
    parts = Path(_relative(path, root)).parts
    return (parts[parts.index("stems") - 1] if "stems" in parts[1:] else path.name).lower()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


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
    return f"scan {VERSION}, {target.rate} Hz, {target.channels} channels, {target.audio.model_dump_json()}"
