"""The summary at the end of a build, for a person."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.ledger import LedgerRow, count

# seconds summed over workers; scan and build are wall time
STAGES = ("read", "mix", "levels", "encode")


@dataclass
class Work:
    """What one run did, in seconds: of wall time, of each stage summed over the workers, and of audio."""

    scan_s: float
    stages: Counter[str]
    stem_s: float = 0.0
    stream_s: float = 0.0  # stems and mixes
    wall_s: float = 0.0


@dataclass(frozen=True)
class Report:
    """`work` is None when the dataset was complete already."""

    out: Path
    generation: str
    ledger: list[LedgerRow]
    work: Work | None

    @property
    def index(self) -> dict[str, Any]:
        text = (self.out / "generations" / self.generation / "dataset.json").read_text()
        return dict(json.loads(text))

    def lines(self) -> list[str]:
        index = self.index
        rate = index["codec"]["frame_rate"]
        splits = index["splits"]
        if self.work is None:
            head = f"{self.out}: complete already, nothing to do (generation {self.generation})"
        else:
            head = f"{self.out}: built in {self.work.wall_s:.1f} s (generation {self.generation})"
        counts = index["counts"]
        lines = [
            head,
            f"  in: {counts['audio_s'] / 3600:.2f} h of music, {counts['stem_s'] / 3600:.2f} h of stems used",
        ]
        for name, split in splits.items():
            size = sum(shard["bytes"] for shard in split["shards"]) / 1e6
            lines.append(
                f"  {name:<11}{split['examples']:>5} multitracks  {split['stems']:>5} stems + {split['mixes']:>5} mixes"
                f"  {split['frames']:>8} frames = {split['frames'] / rate / 3600:6.2f} h of latents  "
                f"{len(split['shards'])} shards, {size:.1f} MB"
            )
        return lines + self._ledger_lines() + self._time_lines()

    def _ledger_lines(self) -> list[str]:
        counts = count(self.ledger)
        lines = [
            f"  inputs {len(self.ledger)} = {counts['used']} used + {counts['filtered']} filtered "
            f"+ {counts['quarantined']} quarantined   (every one of them: {self.out / 'ledger.parquet'})"
        ]
        for (status, reason), times in sorted(Counter((r.status, r.reason) for r in self.ledger if r.reason).items()):
            first = next(row for row in self.ledger if row.reason == reason)
            more = f" and {times - 1} more" if times > 1 else ""
            lines.append(
                f"    {status:<12}{reason:<18}{first.path}{more}" + (f": {first.detail}" if first.detail else "")
            )
        padded = [row for row in self.ledger if row.status == "used" and row.detail]
        if padded:
            lines.append(f"    used, though  {padded[0].path}: {padded[0].detail}  ({len(padded)} such)")
        return lines

    def _time_lines(self) -> list[str]:
        if self.work is None:
            return []
        parts = []
        for stage in STAGES:
            spent = self.work.stages[stage]
            audio_s = self.work.stem_s if stage == "read" else self.work.stream_s
            parts.append(f"{stage} {spent:.1f} s ({audio_s / max(spent, 1e-6):.0f}x)")
        each = ", ".join(parts)
        return [f"  scan {self.work.scan_s:.1f} s; summed over workers: {each}   (x: stem-seconds a second and core)"]
