"""`prep verify`: all of a dataset held to its digests; faults on stdout, progress on stderr."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prep.device import CPU, Device
from prep.errors import PrepError
from prep.kept_faults import KeptAudio
from prep.lock import locked
from prep.repair import Repair
from shards.damage import Fault
from shards.verify import Verification

_TABLES = ("scan.parquet", "plan.parquet", "ledger.parquet")


def verify(
    data: Path,
    workers: int,
    repair: bool = False,
    root: Path | None = None,
    progress: bool = True,
    device: Device = CPU,
) -> bool:
    """Whether `data` (a dataset, or one of its generations) is sound, after a repair where that is asked for.

    Raises ShardError where there is no dataset, PrepError for a repair that cannot be tried.
    """
    if repair and not (data / "generations").is_dir():
        raise PrepError(f"{data} is not a whole dataset. With --repair name the --out of its build.")
    if root and not root.is_dir():
        raise PrepError(f"--root {root} is not a folder. Name the corpus that {data} was built from.")
    checked, kept = Verification(data), KeptAudio(data)
    faults = _shown(checked, kept, workers, progress)
    for note in (*checked.notes, *kept.notes):
        print(f"note: {note}")
    print(_summary(checked, kept, faults))
    if not faults or not repair:
        if faults and (data / "generations").is_dir():
            print(f"re-make them: prep verify {data} --repair --root CORPUS")
        return not faults
    with locked(data):
        left = Repair(data, root, workers, faults, progress, device).run()
    print(f"{len(left)} left as they are: {', '.join(left)}" if left else f"{data}: repaired, and verified again")
    return not left


def _shown(checked: Verification, kept: KeptAudio, workers: int, progress: bool) -> list[Fault]:
    """The faults, each printed as it is found."""
    faults, size, lock = [], checked.bytes + kept.bytes, threading.Lock()
    with tqdm(total=size, desc="verify", unit="B", unit_scale=True, disable=not progress) as bar:

        def seen(count: int) -> None:
            with lock:
                bar.update(count)

        for fault in chain(_tables(checked.path), checked.faults(workers, seen), kept.faults(workers, seen)):
            faults.append(fault)
            tqdm.write(str(fault))
    return faults


def _tables(data: Path) -> Iterator[Fault]:
    """What the build wrote beside the generations; a copy of a dataset may do without."""
    for name in _TABLES:
        try:
            if (data / name).exists():
                pd.read_parquet(data / name)
        except (OSError, ValueError):
            yield Fault(name, "cannot be read; run the same `prep build` again")


def _summary(checked: Verification, kept: KeptAudio, faults: Sequence[Fault]) -> str:
    """In one line."""
    tars = f", and {len(kept.tars)} tars of kept audio, {_size(kept.bytes)}" if kept.tars else ""
    if not faults:
        return f"{checked.shards} shards, {_size(checked.bytes)}{tars}: no fault"
    places = {(fault.generation, fault.shard) for fault in faults}
    shards = sum(shard.endswith(".tar") and shard not in kept.tars for _, shard in places)
    bad = sum(shard in kept.tars for _, shard in places)
    others = sorted({shard for _, shard in places if not shard.endswith(".tar")})
    told = [f"{shards} of {checked.shards} shards faulty"]
    told += [f"{bad} of {len(kept.tars)} tars of kept audio"] if bad else []
    return ", and ".join([*told, *([", ".join(others)] if others else [])])


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count > 1e9 else f"{count / 1e6:.1f} MB"
