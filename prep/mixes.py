"""`prep mixes`: what more mixes would bring, and a dataset with more of them.

More draws of the mix law hold all draws that were made before, so every stem and every mix there is stays as it is.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

import shards
from prep.build import finish
from prep.device import CPU, Device
from prep.draft import bytes_per_sample, draft_of, target_of
from prep.draws import rng_for
from prep.errors import PrepError
from prep.lock import locked
from prep.pairs import Song, lines, pair_costs
from prep.plan import read_plan
from prep.recorded import recorded_codec, recorded_config
from prep.report import Report
from prep.scan import ScanRow, read_scan, scan_key


def add_mixes(out: Path, root: Path, number: int, workers: int, progress: bool = True, device: Device = CPU) -> Report:
    """A new generation with `number` more subsets for each target. What the last build used is read from its own scan
    and ledger: neither the corpus's other songs nor another recipe come into it.

    Raises PrepError where the scan is not that of the last build, and where a source has changed since.
    """
    dataset = shards.open(out)
    config, codec = recorded_config(dataset), recorded_codec(dataset)
    rows = _scanned(out, scan_key(target_of(codec.identity, config)))
    if draft_of(rows, root, out, config, codec.identity).plan.digest != dataset.index["plan"]:
        raise PrepError(f"{out} has been scanned again, or begun anew, since it was built. Run the same build first.")
    total = config.mixing.subsets_per_target + number
    if total > 64:
        raise PrepError(f"--add {number} makes {total} subsets a target; mixing.subsets_per_target ends at 64.")
    mixing = config.mixing.model_copy(update={"subsets_per_target": total})
    more = config.model_copy(update={"mixing": mixing})
    with locked(out):
        return finish(draft_of(rows, root, out, more, codec.identity, device), workers, progress)


def costs_of(out: Path) -> list[str]:
    """For a person: what 1, 2, 4 and 8 mixes a target would bring this dataset, and cost. Raises PrepError."""
    dataset = shards.open(out)
    config, codec = recorded_config(dataset), recorded_codec(dataset)
    rows = read_plan(out / "plan.parquet")
    if {row.id for row in rows} != set(dataset.ids):
        raise PrepError(f"plan.parquet of {out} is of a later, unfinished build. Run that build again.")
    songs = [Song(row.id, row.stems, row.targets, row.contexts, row.samples) for row in rows]
    law, rng_of = config.mixing.size_law, partial(rng_for, config.seed)
    return lines(pair_costs(songs, law, rng_of, bytes_per_sample(codec.identity)))


def _scanned(out: Path, key: str) -> list[ScanRow]:
    """The scan's rows of the files in the ledger."""
    try:
        inputs = set(pd.read_parquet(out / "ledger.parquet", columns=["path"])["path"])
    except (OSError, ValueError) as error:
        raise PrepError(f"{out / 'ledger.parquet'} cannot be read. Run the same `prep build` again.") from error
    rows = [row for row in read_scan(out / "scan.parquet", key) if row.path in inputs]
    if {row.path for row in rows} != inputs:
        raise PrepError(f"{out / 'scan.parquet'} is not the scan of the last build. Run the same `prep build` again.")
    return rows
