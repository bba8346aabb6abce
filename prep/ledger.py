"""Every input accounted for: used, filtered(reason) or quarantined(reason)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from prep.config import PrepConfig
from prep.errors import PrepError
from prep.plan import Plan
from prep.scan import ScanRow, write_table

STATUSES = ("used", "filtered", "quarantined")
# Reasons that say "not wanted"; every other one says "broken"
FILTERED = frozenset(
    {
        "omitted",
        "known_white_noise",
        "duplicate_id",
        "duplicate_stem",
        "unsupported_format",
        "rate",
        "too_long",
        "silent",
        "class_not_allowed",
        "too_few_stems",
        "no_target",
        "no_context",
        "no_valid_window",
        "rendition_not_train",
    }
)


@dataclass(frozen=True)
class LedgerRow:
    path: str
    id: str
    stem: str
    split: str
    corpus: str
    licence: str
    program: int
    instrument: str
    digest: str
    status: str
    reason: str
    detail: str


def status_of(reason: str) -> str:
    """The ledger's word for a reason."""
    if not reason:
        return "used"
    return "filtered" if reason in FILTERED else "quarantined"


def make_ledger(scan: list[ScanRow], plan: Plan) -> list[LedgerRow]:
    """A row for every row of the scan."""
    rows = []
    for row in scan:
        reason, detail = plan.verdicts[row.path]
        rows.append(
            LedgerRow(
                row.path,
                row.id,
                row.stem,
                row.split,
                row.corpus,
                row.licence,
                row.program,
                row.instrument,
                row.digest,
                status_of(reason),
                reason,
                detail,
            )
        )
    return rows


def write_ledger(rows: list[LedgerRow], path: Path) -> None:
    write_table(pd.DataFrame([asdict(row) for row in rows]), path)


def read_ledger(path: Path) -> list[LedgerRow]:
    """Raises PrepError where it is none of this release."""
    try:
        table = pd.read_parquet(path, columns=[field.name for field in fields(LedgerRow)])
    except (OSError, ValueError) as error:
        raise PrepError(f"{path} is not a ledger that can be read. Run the same `prep build` again.") from error
    return [LedgerRow(**{str(name): value for name, value in row.items()}) for row in table.to_dict("records")]


def count(rows: list[LedgerRow]) -> dict[str, int]:
    """By status; the sum is the number of inputs."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in STATUSES}


def check(rows: list[LedgerRow], config: PrepConfig, where: str) -> None:
    """Raises PrepError when nothing can be used, or when too much is broken. `where` all the rows can be read."""
    counts = count(rows)
    if not counts["used"]:
        (reason, detail), times = Counter((row.reason, row.detail) for row in rows).most_common(1)[0]
        raise PrepError(f"nothing to build: {times} of {len(rows)} files: {reason} ({detail}). All of them: {where}.")
    share = counts["quarantined"] / len(rows)
    if share > config.max_bad_fraction:
        broken = next(row for row in rows if row.status == "quarantined")
        raise PrepError(
            f"{counts['quarantined']} of {len(rows)} files are broken ({share:.0%}), more than max_bad_fraction "
            f"({config.max_bad_fraction:g}) allows; the first: {broken.path} ({broken.reason}). "
            f"Mend them (all of them: {where}), or --set max_bad_fraction=1."
        )


def check_plan(rows: list[LedgerRow], plan: Plan) -> None:
    """Raises PrepError unless what the ledger calls used is what the plan builds: the ledger on disk may be that of a
    build that went no further."""
    used = {row.path for row in rows if row.status == "used"}
    if odd := used ^ {path for row in plan.rows for files in row.paths for path in files}:
        raise PrepError(
            f"ledger and plan are not of one build: they differ in {len(odd)} files ({min(odd)}, ...). "
            "Run the `prep build` that you want again."
        )
