"""The summary at the end of a build, for a person."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.job import Built
from prep.ledger import LedgerRow, count
from prep.plan import Plan

# seconds summed over workers; scan and build are wall time
STAGES = ("read", "augment", "mix", "measure", "encode", "keep", "copy")


@dataclass
class Work:
    """What one run did, in seconds: of wall time, of each stage summed over the workers, and of audio."""

    scan_s: float
    stages: Counter[str]
    stem_s: float = 0.0  # read
    stream_s: float = 0.0  # stems and mixes encoded
    wall_s: float = 0.0
    encoded: int = 0  # streams
    copied: int = 0
    ran_frames: int = 0  # by the codec
    padding_frames: int = 0
    kept: list[str] = field(default_factory=list)  # shards that another generation held as they are
    elsewhere: list[str] = field(default_factory=list)  # what was taken over from other machines or software

    def add(self, built: Built) -> None:
        self.stages.update(built.seconds)
        self.stem_s += built.stem_s
        self.stream_s += built.stream_s
        self.encoded += built.encoded
        self.ran_frames += built.ran_frames
        self.padding_frames += built.padding_frames
        self.copied += len(built.example.streams) - built.encoded


@dataclass(frozen=True)
class Report:
    """`work` is None when the dataset was complete already."""

    out: Path
    generation: str
    ledger: list[LedgerRow]
    plan: Plan
    work: Work | None
    missing: list[str] = field(default_factory=list)  # shards that other parts of the build make

    @property
    def index(self) -> dict[str, Any]:
        text = (self.out / "generations" / self.generation / "dataset.json").read_text()
        return dict(json.loads(text))

    def lines(self) -> list[str]:
        if self.missing:
            told = (
                f"{self.out}: this part is done, {len(self.missing)} shards are not there yet ({self.missing[0]}, ...)"
            )
            last = f"the last part completes the dataset; so does `prep finish {self.out}` when all are there"
            return [told, f"  {last}", *self._time_lines()]
        index = self.index
        rate = index["codec"]["frame_rate"]
        splits = index["splits"]
        if self.work is None:
            head = f"{self.out}: complete already, nothing to do (generation {self.generation})"
        else:
            head = f"{self.out}: built in {self.work.wall_s:.1f} s (generation {self.generation})"
        counts = index["counts"]
        renditions = f"{counts['renditions']} of the examples are renditions, " if counts["renditions"] else ""
        lines = [
            head,
            f"  in: {counts['audio_s'] / 3600:.2f} h of music, {counts['stem_s'] / 3600:.2f} h of stems used; "
            f"{renditions}{counts['pairs']} pairs of target and mix",
            codec_line(index),
        ]
        for name, split in splits.items():
            size = sum(shard["bytes"] for shard in split["shards"]) / 1e6
            lines.append(
                f"  {name:<11}{split['examples']:>5} examples  {split['stems']:>5} stems + {split['mixes']:>5} mixes"
                f"  {split['frames']:>8} frames = {split['frames'] / rate / 3600:6.2f} h of latents  "
                f"{len(split['shards'])} shards, {size:.1f} MB"
            )
        where = f"   (every one of them: {self.out / 'ledger.parquet'})"
        return lines + ledger_lines(self.ledger, self.plan, where) + self._time_lines()

    def _time_lines(self) -> list[str]:
        if self.work is None:
            return []
        parts = []
        for stage in STAGES:
            if not (spent := self.work.stages[stage]):
                continue
            audio_s = self.work.stem_s if stage in ("read", "augment") else self.work.stream_s
            speed = "" if stage == "copy" else f" ({audio_s / max(spent, 1e-6):.0f}x)"
            parts.append(f"{stage} {spent:.1f} s{speed}")
        padding = self.work.padding_frames / max(1, self.work.ran_frames)
        padded = f"; {padding:.1%} of the frames that the codec ran were padding" if padding else ""
        kept = f"; {len(self.work.kept)} shards taken over as they are" if self.work.kept else ""
        return [
            *(f"  {line}" for line in self.work.elsewhere),
            f"  {self.work.encoded} streams encoded, {self.work.copied} copied from another generation{kept}{padded}",
            f"  scan {self.work.scan_s:.1f} s; summed over workers: {', '.join(parts)}"
            "   (x: stem-seconds a second and core)",
        ]


def codec_line(index: dict[str, Any]) -> str:
    """Whether the latents are causal, and how far the codec hears ahead where they are not."""
    codec = index["codec"]
    if codec["causal"]:
        return f"  codec {codec['name']}: certified causal, {codec['delay_samples']} samples of delay beyond the frame"
    measured = {each["name"]: each["value"] for each in index["certificate"]["measurements"]}
    encode, decode = measured["encode: reaches ahead"], measured["decode: reaches ahead"]
    return (
        f"  codec {codec['name']}: NOT causal. A frame hears {encode} samples ahead and sounds {decode} before itself: "
        "what is trained on these latents cannot play live"
    )


def ledger_lines(ledger: list[LedgerRow], plan: Plan, where: str = "") -> list[str]:
    """What came of the inputs, and every remark there is; `where` all of them can be read."""
    counts = count(ledger)
    lines = [
        f"  inputs {len(ledger)} = {counts['used']} used + {counts['filtered']} filtered "
        f"+ {counts['quarantined']} quarantined{where}"
    ]
    for (status, reason), times in sorted(Counter((r.status, r.reason) for r in ledger if r.reason).items()):
        first = next(row for row in ledger if row.reason == reason)
        more = f" and {times - 1} more" if times > 1 else ""
        detail = f": {first.detail}" if first.detail else ""
        lines.append(f"    {status:<12}{reason:<18}{first.path}{more}{detail}")
    used = [row for row in ledger if row.status == "used"]
    for word in ("padded", "trimmed", "never a target"):
        if found := [row for row in used if word in row.detail]:
            lines.append(f"    used, though  {found[0].path}: {found[0].detail}  ({len(found)} such)")
    if unknown := [row for row in used if row.instrument == "Unknown"]:
        listed = ", ".join(f"{row.path} (program {row.program})" for row in unknown[:5])
        lines.append(f"    class Unknown {len(unknown)} stems: {listed}{', ...' if len(unknown) > 5 else ''}")
    splits: dict[str, dict[str, str]] = {}
    for row in used:
        splits.setdefault(row.digest, {}).setdefault(row.split, row.path)
    if leaks := [paths for paths in splits.values() if len(paths) > 1]:
        lines.append(f"    in two splits {' = '.join(leaks[0].values())}: the same file  ({len(leaks)} such)")
    if dropped := sum(row.dropped_mixes for row in plan.rows):
        lines.append(f"    mixes left out {dropped}: drawn, but never heard together with a target")
    return lines
