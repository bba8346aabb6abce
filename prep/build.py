"""`prep build`: scan, plan, then one example after the other: read, mix, measure, encode, write."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import shards
from prep.codecs import load_codec
from prep.config import PrepConfig
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.example import build_example
from prep.instruments import CLASSES
from prep.ledger import check, count, make_ledger, write_ledger
from prep.multitrack import Multitrack
from prep.plan import Plan, PlanRow, make_plan, write_plan
from prep.report import Report
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
    """Bring OUT up to date with corpus, config and codec; raises PrepError where that cannot be."""
    _check_out(out)
    started = time.monotonic()
    codec = load_codec(config.codec)
    identity = codec.identity
    target = Target(identity.sample_rate, identity.channels, config.audio)
    rows = _scan(corpus, out, target, workers, progress)
    scan_s = time.monotonic() - started
    plan = make_plan(rows, config, bytes_per_sample=2 * identity.dim / identity.hop)
    ledger = make_ledger(rows, plan)
    write_ledger(ledger, out / "ledger.parquet")
    check(ledger, config)
    write_plan(plan, out / "plan.parquet")
    name = f"{plan.digest}-{identity.name}-{identity.digest}"
    folder = out / "generations" / name
    report = Report(out, name, corpus.name, ledger, {"scan": scan_s})
    if not (folder / "dataset.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _build_shards(plan, folder, corpus.root, config, target, workers, progress, report.seconds)
        header = {
            "generation": name,
            "plan": plan.digest,
            "codec": identity.to_json(),
            "latent_dtype": "float16",
            "levels_rate_hz": float(LEVELS_RATE_HZ),
            "classes": list(CLASSES),
            "config": config.model_dump(),
            "counts": {**count(ledger), "multitracks": len(plan.rows)},
        }
        shards.write_index(folder, header, {split: shards.shard_names(split, n) for split, n in plan.shards.items()})
        report = report.after(time.monotonic() - started)
    shards.set_current(out, name)
    return report


def _check_out(out: Path) -> None:
    """Refuse a folder that holds something else, or that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepError(f"--out {out} cannot be made ({error.strerror}). Name a folder that you may write.") from error
    if any(out.iterdir()) and not (out / "scan.parquet").is_file():
        raise PrepError(f"--out {out} holds files that are not a dataset's. Name an empty or a new folder.")
    if not os.access(out, os.W_OK):
        raise PrepError(f"--out {out} cannot be written. Name a folder that you may write.")


def _scan(corpus: Corpus, out: Path, target: Target, workers: int, progress: bool) -> list[ScanRow]:
    key = scan_key(target)
    earlier = read_scan(out / "scan.parquet", key)

    def run(function: Callable[[Multitrack], list[ScanRow]], items: list[Multitrack]) -> Iterator[list[ScanRow]]:
        bar = tqdm(local(function, items, workers), "scan", len(items), unit="multitrack", disable=not (progress and items))
        return iter(bar)

    groups = scan(corpus.multitracks, corpus.root, target, earlier, run)
    rows = [row for group in groups for row in group] + left_out(corpus.rejects, corpus.root, corpus.name)
    if rows != earlier:
        write_scan(rows, out / "scan.parquet", key)
    return rows


def _build_shards(
    plan: Plan,
    folder: Path,
    root: Path,
    config: PrepConfig,
    target: Target,
    workers: int,
    progress: bool,
    seconds: dict[str, float],
) -> None:
    """Every shard that has no receipt yet; adds up the stages' seconds."""
    by_shard: dict[str, list[PlanRow]] = {
        name: [row for row in plan.rows if row.split == split and row.shard == number]
        for split, amount in plan.shards.items()
        for number, name in enumerate(shards.shard_names(split, amount))
    }
    todo = {name: rows for name, rows in by_shard.items() if not (folder / name).with_suffix(".json").is_file()}
    rows = [row for group in todo.values() for row in group]
    function = partial(build_example, root=root, config=config, target=target)
    built = local(function, rows, workers)
    with tqdm(total=len(rows), desc="build", unit="multitrack", disable=not progress) as bar:
        hours, started = 0.0, time.monotonic()

        def take(amount: int) -> Iterator[shards.Example]:
            nonlocal hours
            for _ in range(amount):
                item = next(built)
                for stage, spent in item.seconds.items():
                    seconds[stage] = seconds.get(stage, 0.0) + spent
                hours += item.example.meta["samples"] * len(item.example.meta["members"]) / target.rate / 3600
                bar.update()
                speed = hours * 3600 / max(1e-6, time.monotonic() - started)
                bar.set_postfix_str(f"{hours:.2f} audio hours, {speed:.0f}x real time")
                yield item.example

        for name, group in todo.items():
            shards.write_shard(folder / name, take(len(group)), fingerprint())


def fingerprint() -> dict[str, str]:
    """The hardware and software on which equal inputs give equal bytes."""
    return {
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
