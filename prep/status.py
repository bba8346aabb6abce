"""`prep status`: what of a dataset is complete, stale (and why) or missing. Nothing is decoded and nothing written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import shards
from prep.audio import content_digest
from prep.draft import Draft
from prep.errors import PrepError
from prep.generations import generations
from prep.ledger import read_ledger
from prep.multitrack import Multitrack
from prep.plan import PlanRow
from prep.rebuild import live_plan
from prep.recorded import recorded_codec, recorded_config
from prep.scan import relative


def lines(out: Path, root: Path | None, multitracks: Iterable[Multitrack]) -> list[str]:
    """For a person; with the corpus at `root`, whose multitracks are given, also what changed in it.

    Raises PrepError for a folder that holds no dataset."""
    told = [each.line() for each in generations(out)]
    try:
        dataset = shards.open(out)
    except shards.ShardError as error:
        return [*told, f"missing: {error}"]
    told += _stale_by_codec(dataset) or _stale_by_code(out, dataset)
    try:
        return told + _by_source(out, root, multitracks)
    except PrepError as error:  # of another build, that was begun or rolled back
        return [*told, f"sources: not looked at; {error}"]


def _stale_by_codec(dataset: shards.Dataset) -> list[str]:
    spec = dataset.index["config"]["codec"]
    try:
        recorded_codec(dataset)
    except PrepError as error:
        return [f"stale: every stream; codec {spec}: {error}"]
    return []


def _stale_by_code(out: Path, dataset: shards.Dataset) -> list[str]:
    """Shards that this release would make otherwise: its stages' declared versions, or its way of planning."""
    try:
        plan, config = live_plan(out, dataset), recorded_config(dataset)
    except PrepError as error:
        return [f"stale: the plan; {error}"]
    draft = Draft(None, out, config, recorded_codec(dataset).identity, plan, [])
    missing, total = draft.missing(), len(draft.groups)
    there = [name for name in missing if (draft.folder / name).is_file()]
    told = []
    if there:
        told.append(f"stale: {len(there)} of {total} shards ({there[0]}, ...); this release makes them otherwise")
    if len(missing) > len(there):
        gone = next(name for name in missing if name not in there)
        told.append(f"missing: {len(missing) - len(there)} of {total} shards ({gone}, ...); `prep verify --repair`")
    return told or [f"complete: {total} shards, by this release and the codec as it is now"]


def _by_source(out: Path, root: Path | None, multitracks: Iterable[Multitrack]) -> list[str]:
    if root is None:
        return ["sources: not looked at; give --root"]
    ledger = read_ledger(out / "ledger.parquet")
    known = {row.path: row.digest for row in ledger if row.digest}
    found = {relative(stem.path, root): stem.path for each in multitracks for stem in each.stems}
    touched = _touched(out, found)
    changed = {path for path in touched if path in known and content_digest(found[path]) != known[path]}
    gone = {path for path in known if path not in found}
    new = sorted(path for path in found if path not in {row.path for row in ledger})
    rows = live_plan(out, shards.open(out)).rows
    told = [
        f"stale: {_streams_of(rows, paths)} streams; {len(paths)} sources {word} ({min(paths)}, ...)"
        for word, paths in (("changed", changed), ("are gone", gone))
        if paths
    ]
    if new:
        told.append(f"missing: {len(new)} sources are new ({new[0]}, ...)")
    still = len(touched - changed)
    return told or [f"sources: {len(found)} as they were" + (f", {still} of them touched" if still else "")]


def _touched(out: Path, found: dict[str, Path]) -> set[str]:
    """Sources whose size, time or inode is not that of the last scan."""
    try:
        scan = pd.read_parquet(out / "scan.parquet", columns=["path", "size", "mtime_ns", "inode"])
    except (OSError, ValueError):
        return set(found)
    stats = {path: (size, mtime, inode) for path, size, mtime, inode in scan.itertuples(index=False)}
    now = {path: file.stat() for path, file in found.items() if file.is_file()}
    return {path for path, stat in now.items() if stats.get(path) != (stat.st_size, stat.st_mtime_ns, stat.st_ino)}


def _streams_of(rows: Iterable[PlanRow], paths: set[str]) -> int:
    """How many streams these sources reach."""
    count = 0
    for row in rows:
        touched = {i for i, files in enumerate(row.paths) if paths.intersection(files)}
        members = [*((i,) for i in range(len(row.stems))), *row.mixes]
        count += sum(not touched.isdisjoint(each) for each in members)
    return count
