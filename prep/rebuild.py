"""`prep rebuild`: the same plan in another codec's latents.

Gains, levels and loudness are those of the live generation, and nothing is scanned, measured or drawn again: audio that
was kept is read and encoded; else sources are, and mixed.
"""

from __future__ import annotations

from pathlib import Path

import shards
from prep.build import finish
from prep.codecs import load_codec
from prep.device import CPU, Device
from prep.draft import Draft
from prep.errors import PrepError
from prep.ledger import read_ledger
from prep.lock import locked
from prep.plan import Plan, plan_digest, read_header, read_plan
from prep.recorded import recorded_config
from prep.report import Report


def rebuild(
    out: Path, root: Path | None, codec: str, workers: int, progress: bool = True, device: Device = CPU
) -> Report:
    """A new generation of OUT's live plan, encoded by `codec`, which becomes the live one when it is complete.
    Where all audio is kept, the corpus at `root` is not needed.

    Raises PrepError where the codec wants other audio than was planned, where OUT's plan is not that of its live
    generation, and where a source has changed.
    """
    dataset = shards.open(out)
    identity, was = load_codec(codec).identity, dataset.codec
    for name in ("sample_rate", "channels"):
        if getattr(identity, name) != was[name]:
            raise PrepError(
                f"--codec {codec} has {name} {getattr(identity, name)}, the codec that {out} was planned for "
                f"{was[name]}: levels and loudness would be others. Run `prep build` with it, into another --out."
            )
    config = recorded_config(dataset).model_copy(update={"codec": codec})
    with locked(out):
        ledger = read_ledger(out / "ledger.parquet")
        draft = Draft(root, out, config, identity, live_plan(out, dataset), ledger, device)
        if root is None:
            _check_kept(draft)
        return finish(draft, workers, progress)


def _check_kept(draft: Draft) -> None:
    """Raises PrepError where sources are needed."""
    jobs = draft.jobs([row for rows in draft.missing().values() for row in rows])
    lacking = [job.id for job in jobs if job.needed] + [row.id for rows in draft.unkept().values() for row in rows]
    if lacking:
        raise PrepError(
            f"{draft.out} does not keep all audio of {len(set(lacking))} of {len(draft.plan.rows)} examples "
            f"({lacking[0]}, ...). Name the corpus that it was built from: --root FOLDER."
        )


def live_plan(out: Path, dataset: shards.Dataset) -> Plan:
    """plan.parquet as the plan of the live generation. Raises PrepError where it is another's."""
    path = out / "plan.parquet"
    rows = read_plan(path)
    if plan_digest(rows, recorded_config(dataset)) != dataset.index["plan"]:
        raise PrepError(
            f"{path} is not the plan of the live generation {shards.current(out)}: another build was "
            "begun, or rolled back. Run the build that you want again."
        )
    return Plan(tuple(rows), read_header(path)[1], {}, dataset.index["plan"])
