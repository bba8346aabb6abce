"""`prep verify`: all of a dataset held to its digests; faults on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prep.device import CPU, Device
from prep.errors import PrepError
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
    checked = Verification(data)
    faults = _shown(checked, workers, progress)
    for note in checked.notes:
        print(f"note: {note}")
    print(_summary(checked, faults))
    if not faults or not repair:
        if faults and (data / "generations").is_dir():
            print(f"re-make them: prep verify {data} --repair --root CORPUS")
        return not faults
    with locked(data):
        left = Repair(data, root, workers, faults, progress, device).run()
    print(f"{len(left)} left as they are: {', '.join(left)}" if left else f"{data}: repaired, and verified again")
    return not left


def _shown(checked: Verification, workers: int, progress: bool) -> list[Fault]:
    """The faults, each printed as it is found."""
    faults = []
    with tqdm(total=checked.bytes, desc="verify", unit="B", unit_scale=True, disable=not progress) as bar:

        def seen(count: int) -> None:
            bar.update(count)

        for fault in chain(_tables(checked.path), checked.faults(workers, seen)):
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


def _summary(checked: Verification, faults: Sequence[Fault]) -> str:
    """In one line."""
    size = f"{checked.bytes / 1e9:.1f} GB" if checked.bytes > 1e9 else f"{checked.bytes / 1e6:.1f} MB"
    if not faults:
        return f"{checked.shards} shards, {size}: no fault"
    places = {(fault.generation, fault.shard) for fault in faults}
    tars = sum(shard.endswith(".tar") for _, shard in places)
    others = sorted({shard for _, shard in places if not shard.endswith(".tar")})
    return f"{tars} of {checked.shards} shards faulty" + (f", and {', '.join(others)}" if others else "")
