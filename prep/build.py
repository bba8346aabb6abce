"""`prep build`: scan, plan, then example after example into shards, then the index and the swap of `current`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import soxr
import torch
from tqdm import tqdm

import shards
from prep.codecs import CodecIdentity, load_codec
from prep.config import PrepConfig
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.example import Built, build_example
from prep.instruments import CLASSES
from prep.ledger import check, count, make_ledger, write_ledger
from prep.multitrack import Multitrack
from prep.plan import Plan, PlanRow, make_plan, write_plan
from prep.report import Report, Work
from prep.scan import ScanRow, Target, left_out, read_scan, scan, scan_key, write_scan
from prep.stages.activity import LEVELS_RATE_HZ


@dataclass(frozen=True)
class Corpus:
    """What a source found below `root`."""

    name: str
    root: Path
    multitracks: list[Multitrack]
    rejects: list[tuple[Path, Reject]] = field(default_factory=list)


def build(corpus: Corpus, out: Path, config: PrepConfig, workers: int, progress: bool = True) -> Report:
    """Bring OUT up to date with corpus, config and codec; raises PrepError where that cannot be.

    What is complete stays as it is: a second call finds nothing to do, one after an interruption builds the shards
    that are missing.
    """
    _check_out(out)
    started = time.monotonic()
    identity = load_codec(config.codec).identity
    target = Target(identity.sample_rate, identity.channels, config.audio)
    rows = _scan(corpus, out, target, workers, progress)
    work = Work(time.monotonic() - started, Counter())
    plan = make_plan(rows, config, bytes_per_sample=2 * identity.dim / identity.hop)
    ledger = make_ledger(rows, plan)
    write_ledger(ledger, out / "ledger.parquet")
    check(ledger, config, out)
    write_plan(plan, out / "plan.parquet")
    name = f"{plan.digest}-{identity.name}-{identity.digest}"
    folder = out / "generations" / name
    folder.mkdir(parents=True, exist_ok=True)
    names = {split: shards.shard_names(split, number) for split, number in plan.shards.items()}
    missing = [name for split in names.values() for name in split if not shards.finished(folder / name)]
    if missing:
        function = partial(build_example, root=corpus.root, config=config, target=target)
        _build_shards(plan, missing, folder, function, workers, progress, work)
        work.wall_s = time.monotonic() - started
    header = _header(name, plan, identity, config, count(ledger))
    if missing or not _has_header(folder / "dataset.json", header):
        shards.write_index(folder, header, names)
    shards.set_current(out, name)
    return Report(out, name, ledger, work if work.wall_s else None)


def _check_out(out: Path) -> None:
    """Refuse a folder that holds something else, or that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepError(f"--out {out} cannot be made ({error.strerror}). Name a folder that you may write.") from error
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
        raise PrepError(f"--out {out} cannot be read and written. Name a folder that you may write.")
    # a killed build may leave the beginning of its first file
    there = [path for path in out.iterdir() if path.suffix != ".part"]
    if there and not (out / "scan.parquet").is_file():
        raise PrepError(f"--out {out} holds files that are not a dataset's. Name an empty or a new folder.")


def _scan(corpus: Corpus, out: Path, target: Target, workers: int, progress: bool) -> list[ScanRow]:
    key = scan_key(target)
    earlier = read_scan(out / "scan.parquet", key)

    def run(function: Callable[[Multitrack], list[ScanRow]], items: list[Multitrack]) -> Iterator[list[ScanRow]]:
        quiet = not (progress and items)
        return iter(tqdm(local(function, items, workers), "scan", len(items), unit="multitrack", disable=quiet))

    rows: list[ScanRow] = []
    try:
        for group in scan(corpus.multitracks, corpus.root, target, earlier, run):
            rows += group
    finally:
        # also what an interruption leaves, and what this run did not ask for: it need not be decoded again
        asked = {row.id for row in rows}
        others = [row for row in earlier if row.stem and row.id not in asked]
        if rows + others != earlier:
            write_scan(rows + others, out / "scan.parquet", key)
    return rows + left_out(corpus.rejects, corpus.root, corpus.name)


def _build_shards(
    plan: Plan,
    missing: list[str],
    folder: Path,
    function: Callable[..., Built],
    workers: int,
    progress: bool,
    work: Work,
) -> None:
    """Write the missing shards; adds what was done to `work`."""
    groups: dict[str, list[PlanRow]] = {name: [] for name in missing}
    for row in plan.rows:
        name = shards.shard_names(row.split, row.shard + 1)[-1]
        if name in groups:
            groups[name].append(row)
    rows = [row for group in groups.values() for row in group]
    with tqdm(total=len(rows), desc="build", unit="multitrack", disable=not progress) as bar:
        examples = _watched(local(function, rows, workers), bar, work)
        for name, group in groups.items():
            shards.write_shard(folder / name, islice(examples, len(group)), fingerprint())


def _watched(built: Iterator[Built], bar: tqdm[Any], work: Work) -> Iterator[shards.Example]:
    """The examples as they come; keeps the bar and the account of the work."""
    started = time.monotonic()
    for item in built:
        work.stages.update(item.seconds)
        work.stem_s += item.stem_s
        work.stream_s += item.stream_s
        bar.update()
        speed = work.stream_s / max(1e-6, time.monotonic() - started)
        bar.set_postfix_str(f"{work.stream_s / 3600:.2f} audio hours, {speed:.0f}x real time")
        yield item.example


def _header(
    name: str, plan: Plan, identity: CodecIdentity, config: PrepConfig, counts: dict[str, int]
) -> dict[str, Any]:
    """What dataset.json says besides the shards."""
    audio_s = sum(row.samples for row in plan.rows) / identity.sample_rate
    stem_s = sum(row.samples * len(row.stems) for row in plan.rows) / identity.sample_rate
    return {
        "generation": name,
        "plan": plan.digest,
        "codec": identity.to_json(),
        "latent_dtype": "float16",
        "levels_rate_hz": float(LEVELS_RATE_HZ),
        "classes": list(CLASSES),
        "config": config.model_dump(),
        "counts": {**counts, "multitracks": len(plan.rows), "audio_s": audio_s, "stem_s": stem_s},
    }


def _has_header(path: Path, header: dict[str, Any]) -> bool:
    """Whether dataset.json is there and says this of the build; its counts change with what was left out, too."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return all(found.get(key) == value for key, value in json.loads(json.dumps(header)).items())


def fingerprint() -> dict[str, str]:
    """The hardware and software on which equal inputs give equal bytes."""
    return {
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "soxr": soxr.__version__,
        "python": platform.python_version(),
    }
