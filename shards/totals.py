"""What the receipts come to together, held to dataset.json's counts and statistics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from shards.receipt import ROLES, Receipt


class Totals:
    """Adds up receipts, by split. `complete`: all of them could be added."""

    def __init__(self) -> None:
        self.complete = True
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._sums: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, 0.0, 0.0])

    def add(self, split: str, receipt: Receipt) -> None:
        if not receipt.examples:
            return
        counts = self._counts[split]
        counts["examples"] += len(receipt.examples)
        for entry in receipt.examples:
            counts["stems"] += entry.shapes["stems.npy"][0]
            counts["mixes"] += entry.shapes["mixes.npy"][0]
        for role in ROLES:
            share, sums = receipt.statistics[role], self._sums[split, role]
            try:
                counts["frames"] += share["frames"]
                added = (share["frames"], np.array(share["sum"], float), np.array(share["sum_sq"], float))
                self._sums[split, role] = [one + other for one, other in zip(sums, added, strict=True)]
            except (KeyError, TypeError, ValueError):
                self.complete = False

    def against(self, index: dict[str, Any]) -> Iterator[str]:
        """What dataset.json says otherwise; nothing where not all receipts are known."""
        if not self.complete:
            return
        for split, counts in self._counts.items():
            said = index["splits"][split]
            for key, number in counts.items():
                if said.get(key) != number:
                    yield f"says {said.get(key)} {key} in split {split}; the receipts have {number}"
        for (split, role), sums in self._sums.items():
            if not _agrees(index["statistics"], split, role, sums):
                yield f"its statistics of {role}s in split {split} are not those of the receipts"


def _agrees(statistics: Any, split: str, role: str, sums: list[Any]) -> bool:
    """To rounding: the order of adding is another."""
    frames, total, squares = sums
    mean = total / max(frames, 1)
    std = np.sqrt(np.maximum(squares / max(frames, 1) - mean**2, 0.0))
    try:
        said = statistics[split][role]
        return said["frames"] == frames and all(
            np.allclose(said[key], value, rtol=1e-6, atol=1e-5) for key, value in (("mean", mean), ("std", std))
        )
    except (KeyError, TypeError, ValueError):
        return False
