"""`prep build`: scan, plan, then example after example into shards, then the index and the swap of `current`.

Streams that another generation of the dataset holds already are copied, the others encoded.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

import shards
from prep.config import PrepConfig
from prep.draft import Corpus, Draft, check_out, survey
from prep.engines import local
from prep.example import Built, Job
from prep.fingerprint import fingerprint, strangers
from prep.instruments import CLASSES
from prep.ledger import check, count, write_ledger
from prep.lock import locked
from prep.plan import PlanRow, write_plan
from prep.report import Report, Work
from prep.stages.activity import LEVELS_RATE_HZ
from prep.stages.mixing import size_probabilities


def build(
    corpus: Corpus, out: Path, config: PrepConfig, workers: int, progress: bool = True, rescan: bool = False
) -> Report:
    """Bring OUT up to date with corpus, config and codec; raises PrepError where that cannot be.

    What is complete stays as it is: a second call finds nothing to do, one after an interruption builds the shards
    that are missing.
    """
    with locked(check_out(out)):
        return finish(survey(corpus, out, config, workers, progress, rescan), workers, progress)


def finish(draft: Draft, workers: int, progress: bool = True) -> Report:
    """Build what is missing, write the index, and make the generation the live one."""
    started = time.monotonic()
    out, folder = draft.out, draft.folder
    write_ledger(draft.ledger, out / "ledger.parquet")
    check(draft.ledger, draft.config, str(out / "ledger.parquet"))
    write_plan(draft.plan, out / "plan.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    work, missing = Work(draft.scan_s, Counter()), draft.missing()
    if missing:
        _build_shards(draft, missing, workers, progress, work)
        work.wall_s = draft.scan_s + time.monotonic() - started
    header = _header(draft)
    if missing or not _has_header(folder / "dataset.json", header):
        shards.write_index(folder, header, draft.shards)
    shards.set_current(out, draft.generation)
    return Report(out, draft.generation, draft.ledger, draft.plan, work if work.wall_s else None)


def _build_shards(draft: Draft, missing: dict[str, list[PlanRow]], workers: int, progress: bool, work: Work) -> None:
    """Write the missing shards; adds what was done to `work`."""
    jobs = draft.jobs([row for group in missing.values() for row in group])
    work.elsewhere = strangers(_taken_over(draft, jobs))
    with (
        tqdm(total=len(jobs), desc="build", unit="example", disable=not progress) as bar,
        closing(_watched(local(draft.worker(), jobs, workers), bar, work)) as examples,
    ):
        for done, (name, group) in enumerate(missing.items()):
            try:
                shards.write_shard(draft.folder / name, islice(examples, len(group)), fingerprint())
            except KeyboardInterrupt as stop:
                stop.add_note(f"{done} of {len(missing)} missing shards are built")
                raise


def _taken_over(draft: Draft, jobs: list[Job]) -> Iterator[shards.Receipt]:
    """Receipts of the generation's finished shards, and of those that hold streams to be copied."""
    folders = {draft.folder, *(place.folder for job in jobs for place in job.known.values())}
    tars = (path.with_suffix(".tar") for folder in sorted(folders) for path in sorted(folder.glob("*-??????.json")))
    return (receipt for tar in tars if (receipt := shards.finished(tar)))


def _watched(built: Iterator[Built], bar: tqdm[Any], work: Work) -> Generator[shards.Example, None, None]:
    """The examples as they come; keeps the bar and the account of the work."""
    started = time.monotonic()
    for item in built:
        work.add(item)
        bar.update()
        speed = work.stream_s / max(1e-6, time.monotonic() - started)
        bar.set_postfix_str(f"{work.stream_s / 3600:.2f} audio hours, {speed:.0f}x real time")
        yield item.example


def _header(draft: Draft) -> dict[str, Any]:
    """What dataset.json says besides the shards."""
    rows, rate = draft.plan.rows, draft.identity.sample_rate
    renditions = sum(row.id != row.original for row in rows)
    counts = {
        **count(draft.ledger),
        "multitracks": len(rows) - renditions,
        "renditions": renditions,
        "pairs": sum(row.pairs for row in rows),
        "audio_s": sum(row.samples for row in rows) / rate,
        "stem_s": sum(row.samples * len(row.stems) for row in rows) / rate,
    }
    return {
        "generation": draft.generation,
        "plan": draft.plan.digest,
        "codec": draft.identity.to_json(),
        "latent_dtype": "float16",
        "levels_rate_hz": float(LEVELS_RATE_HZ),
        "classes": list(CLASSES),
        "pairs": _pairs(draft),
        "config": draft.config.model_dump(),
        "counts": counts,
    }


def _pairs(draft: Draft) -> dict[str, Any]:
    """How training draws pairs: row i of `size_probabilities` is of the sizes 1 to i + 1, for i + 1 other stems."""
    others = max(len(row.contexts) for row in draft.plan.rows)
    return {
        "exclude_targets": list(draft.config.instruments.exclude_targets),
        "exclude_contexts": list(draft.config.instruments.exclude_contexts),
        "size_probabilities": [
            size_probabilities(number, draft.config.mixing.size_law).tolist() for number in range(1, others + 1)
        ],
    }


def _has_header(path: Path, header: dict[str, Any]) -> bool:
    """Whether dataset.json is there and says this of the build; its counts change with what was left out, too."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return all(found.get(key) == value for key, value in json.loads(json.dumps(header)).items())
