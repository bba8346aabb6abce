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


@dataclass(frozen=True)
class Report:
    """`seconds`: a stage to its seconds. `built_s` is None when the dataset was complete already."""

    out: Path
    generation: str
    ledger: list[LedgerRow]
    seconds: dict[str, float]
    built_s: float | None = None

    @property
    def index(self) -> dict[str, Any]:
        text = (self.out / "generations" / self.generation / "dataset.json").read_text()
        return dict(json.loads(text))

    def lines(self) -> list[str]:
        index = self.index
        rate = index["codec"]["frame_rate"]
        splits = index["splits"]
        if self.built_s is None:
            head = f"{self.out}: complete already, nothing to do (generation {self.generation})"
        else:
            head = f"{self.out}: built in {self.built_s:.1f} s (generation {self.generation})"
        lines = [head]
        for name, split in splits.items():
            size = sum(shard["bytes"] for shard in split["shards"]) / 1e6
            lines.append(
                f"  {name:<11}{split['examples']:>5} multitracks  {split['stems']:>5} stems + {split['mixes']:>5} mixes  "
                f"{split['frames']:>8} frames = {split['frames'] / rate / 3600:6.2f} h of latents  "
                f"{len(split['shards'])} shards, {size:.1f} MB"
            )
        return lines + self._ledger_lines() + self._time_lines(splits, rate)

    def _ledger_lines(self) -> list[str]:
        counts = count(self.ledger)
        lines = [
            f"  inputs {len(self.ledger)} = {counts['used']} used + {counts['filtered']} filtered "
            f"+ {counts['quarantined']} quarantined   (every one of them: {self.out / 'ledger.parquet'})"
        ]
        for (status, reason), times in sorted(Counter((r.status, r.reason) for r in self.ledger if r.reason).items()):
            first = next(row for row in self.ledger if row.reason == reason)
            more = f" and {times - 1} more" if times > 1 else ""
            lines.append(f"    {status:<12}{reason:<18}{first.path}{more}" + (f": {first.detail}" if first.detail else ""))
        padded = [row for row in self.ledger if row.status == "used" and row.detail]
        if padded:
            lines.append(f"    used, though  {padded[0].path}: {padded[0].detail}  ({len(padded)} such)")
        return lines

    def _time_lines(self, splits: dict[str, Any], rate: float) -> list[str]:
        if self.built_s is None:
            return []
        stream_s = sum(split["frames"] for split in splits.values()) / rate
        spent = {stage: self.seconds.get(stage, 0.0) for stage in STAGES}
        parts = [f"{stage} {s:.1f} s ({stream_s / s:.0f}x)" for stage, s in spent.items() if s > 0]
        return [f"  scan {self.seconds['scan']:.1f} s; per core: " + ", ".join(parts) + "   (x: stem-seconds a second)"]
