"""`prep build`: scan, plan, then example after example into shards, then the index and the swap of `current`.

Streams that another generation of the dataset holds already are copied, the others encoded.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

import shards
from prep.certified import certificate_of
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.draft import Corpus, Draft, check_out, survey
from prep.errors import PrepError
from prep.fingerprint import fingerprint, strangers
from prep.instruments import CLASSES
from prep.job import Built, Job
from prep.kept import kept_of, packing, take_over_kept
from prep.ledger import check, check_plan, count, write_ledger
from prep.lock import alone, as_part, clear, locked
from prep.plan import read_header, write_plan
from prep.report import Report, Work
from prep.reuse import take_over
from prep.stages.activity import LEVELS_RATE_HZ
from prep.stages.mixing import size_probabilities


def build(
    corpus: Corpus,
    out: Path,
    config: PrepConfig,
    workers: int,
    progress: bool = True,
    rescan: bool = False,
    device: Device = CPU,
) -> Report:
    """Bring OUT up to date with corpus, config and codec; raises PrepError where that cannot be.

    What is complete stays as it is: a second call finds nothing to do, one after an interruption builds the shards
    that are missing.
    """
    with locked(check_out(out)):
        return finish(survey(corpus, out, config, workers, progress, rescan, device), workers, progress)


@dataclass(frozen=True)
class Part:
    """The `number`-th of `of` parts of a build, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def of_text(cls, text: str) -> Self:
        """`2/3`. Raises PrepError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or not 1 <= part.number <= part.of:
            raise PrepError(f"--part is {text!r}; it must be I/N with I from 1 to N, such as 2/3.")
        return part

    def takes(self, names: Iterable[str]) -> set[str]:
        """Of all shards every `of`-th: which, does not depend on what is finished."""
        return set(islice(names, self.number - 1, None, self.of))


def finish(draft: Draft, workers: int, progress: bool = True) -> Report:
    """Build what is missing, write the index, and make the generation the live one. OUT is locked by the caller."""
    _begin(draft)
    return _end(draft, _make(draft, draft.groups.keys(), workers, progress))


def build_part(
    corpus: Corpus,
    out: Path,
    config: PrepConfig,
    workers: int,
    part: Part,
    progress: bool = True,
    rescan: bool = False,
    device: Device = CPU,
) -> Report:
    """Of a build its `part`, beside others; the one that ends last completes the dataset."""
    with locked(check_out(out), parts=True), as_part(out, part.number, part.of):
        with alone(out):
            draft = survey(corpus, out, config, workers, progress, rescan, device)
            _begin(draft)
        work = _make(draft, part.takes(draft.groups), workers, progress)
        with alone(out):
            _check_ours(draft)
            return _end(draft, work)


def _begin(draft: Draft) -> None:
    """Writes down what was decided."""
    out = draft.out
    check_plan(draft.ledger, draft.plan)
    write_ledger(draft.ledger, out / "ledger.parquet")
    check(draft.ledger, draft.config, str(out / "ledger.parquet"))
    write_plan(draft.plan, out / "plan.parquet", _header(draft))
    draft.folder.mkdir(parents=True, exist_ok=True)


def _make(draft: Draft, mine: Set[str], workers: int, progress: bool) -> Work:
    """Of the shards `mine` writes those that are missing, or links those that another generation has."""
    started, work = time.monotonic(), Work(draft.scan_s, Counter())
    missing, unkept = draft.missing().keys() & mine, draft.unkept().keys() & mine
    if missing or unkept:
        out = draft.out
        work.kept = take_over(out, draft.folder, {n: made for n, made in draft.made_of.items() if n in missing})
        taken = take_over_kept(out, draft.kept_folder, {name: draft.audio_made_of[name] for name in unkept})
        _build_shards(draft, missing.difference(work.kept), unkept.difference(taken), workers, progress, work)
        work.wall_s = draft.scan_s + time.monotonic() - started
    return work


def _check_ours(draft: Draft) -> None:
    """Raises PrepError where another part has begun something else since: then no part would complete anything."""
    header, config = read_header(draft.out / "plan.parquet")[0], draft.config.model_dump()
    if header["generation"] != draft.generation:
        differ = [name for name, value in header["config"].items() if config[name] != value]
        raise PrepError(
            f"{draft.out}: another part was begun meanwhile as generation {header['generation']}, this one as "
            f"{draft.generation} (what differs: {', '.join(differ) or 'the corpus, or the codec'}); its shards stay. "
            "Give all parts the same corpus and settings, and run this one again."
        )


def _end(draft: Draft, work: Work) -> Report:
    """Completes the dataset, unless other parts have still to build theirs."""
    missing = list({**draft.missing(), **draft.unkept()})
    if not missing:
        complete(draft.out)
    return Report(draft.out, draft.generation, draft.ledger, draft.plan, work if work.wall_s else None, missing)


def complete(out: Path) -> str:
    """Writes the index over the finished shards of OUT's plan, and makes that generation the live one; its name.

    Raises PrepError where shards are missing."""
    header, counts = read_header(out / "plan.parquet")
    folder = out / "generations" / header["generation"]
    names = {split: shards.shard_names(split, count) for split, count in counts.items()}
    every = [name for split in names.values() for name in split]
    receipts = {name: shards.finished(folder / name) for name in every}
    missing = {name for name, receipt in receipts.items() if not receipt}
    audio = out / "audio" / header["plan"]
    if header["config"].get("keep_audio"):
        missing |= {name for name, each in receipts.items() if each and each.examples and not kept_of(audio / name)}
    if missing:
        raise PrepError(
            f"{folder}: {len(missing)} of {len(every)} shards are not there ({min(missing)}, ...). Run the parts that "
            "did not end again, or the same `prep build` without --part."
        )
    clear(folder, audio)
    if not _has_header(folder / "dataset.json", header, names):
        shards.write_index(folder, header, names)
    shards.set_current(out, header["generation"])
    return str(header["generation"])


def _build_shards(draft: Draft, missing: set[str], unkept: set[str], workers: int, progress: bool, work: Work) -> None:
    """Write the missing shards, and the missing tars of kept audio; adds what was done to `work`."""
    groups = {name: rows for name, rows in draft.groups.items() if name in missing | unkept}
    jobs = draft.jobs([row for rows in groups.values() for row in rows], unkept)
    work.elsewhere = strangers(_taken_over(draft, jobs), draft.device)
    with (
        tqdm(total=len(jobs), desc="build", unit="example", disable=not progress) as bar,
        closing(_watched(draft.built(jobs, workers), bar, work)) as every,
    ):
        for done, (name, rows) in enumerate(groups.items()):
            try:
                _write(draft, name, islice(every, len(rows)), name in missing, name in unkept)
            except KeyboardInterrupt as stop:
                stop.add_note(f"{done} of {len(groups)} missing shards are built")
                raise


def _write(draft: Draft, name: str, built: Iterator[Built], missing: bool, unkept: bool) -> None:
    """One shard, or its kept audio, or both."""
    if unkept:
        built = _kept(built, draft.kept_folder / name, draft.audio_made_of[name])
    examples = (item.example for item in built)
    if missing:
        shards.write_shard(draft.folder / name, examples, fingerprint() | draft.device.fingerprint, draft.made_of[name])
    else:
        deque(examples, maxlen=0)


def _kept(built: Iterator[Built], path: Path, made_of: str) -> Iterator[Built]:
    """The same; when they end, their FLACs lie at `path`, so that a finished shard's audio is kept."""
    with packing(path, made_of) as add:
        for item in built:
            add(item.flacs, item.example.audio)
            yield item


def _taken_over(draft: Draft, jobs: list[Job]) -> Iterator[shards.Receipt]:
    """Receipts of the generation's finished shards, and of those that hold streams to be copied."""
    folders = {draft.folder, *(place.folder for job in jobs for place in job.known.values())}
    tars = (path.with_suffix(".tar") for folder in sorted(folders) for path in sorted(folder.glob("*-??????.json")))
    found = (receipt for tar in tars if (receipt := shards.finished(tar)))
    return iter({(receipt.shard, receipt.sha256): receipt for receipt in found}.values())  # a linked one counts once


def _watched(built: Iterator[Built], bar: tqdm[Any], work: Work) -> Generator[Built, None, None]:
    """The examples as they come; keeps the bar and the account of the work."""
    started = time.monotonic()
    for item in built:
        work.add(item)
        bar.update()
        speed = work.stream_s / max(1e-6, time.monotonic() - started)
        bar.set_postfix_str(f"{work.stream_s / 3600:.2f} audio hours, {speed:.0f}x real time")
        for line in item.told:
            tqdm.write(line)
        yield item


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
        "certificate": certificate_of(draft),
        "latent_dtype": "float16",
        "levels_rate_hz": float(LEVELS_RATE_HZ),
        "classes": list(CLASSES),
        "pairs": _pairs(draft),
        # without kept audio, datasets are the same as before there was any
        "config": draft.config.model_dump(exclude=set() if draft.config.keep_audio else {"keep_audio"}),
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


def _has_header(path: Path, header: dict[str, Any], names: dict[str, list[str]]) -> bool:
    """Whether dataset.json is there, says this of the build, and lists the shards as they are now; its counts change
    with what was left out, too."""
    try:
        found = shards.open(path.parent).index
    except shards.ShardError:
        return False
    listed = {item["name"]: item["sha256"] for split in found["splits"].values() for item in split["shards"]}
    receipts = [shards.read_receipt(path.parent / name) for split in names.values() for name in split]
    same = listed == {receipt.shard: receipt.sha256 for receipt in receipts if receipt.examples}
    return same and all(found.get(key) == value for key, value in header.items())
