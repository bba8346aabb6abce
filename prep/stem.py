"""One stem of an example as audio: its files read, held to the scan's digests, summed, and augmented as planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prep.audio import content_digest
from prep.errors import PrepError, Reject
from prep.instruments import DRUMS
from prep.plan import PlanRow
from prep.scan import Target, load_stem, reading
from prep.stages.augment import Augmentation, augment

Audio = NDArray[np.float32]


def read_stem(
    row: PlanRow, stem: int, root: Path, target: Target, lap: Callable[[str], None] = lambda stage: None
) -> Audio:
    """(channels, row.samples), without any gain; a shorter stem is padded with silence, a longer one is cut.

    `lap` is told the name of each stage that has ended. Raises PrepError where a file is not what was scanned.
    """
    audio = _read(root / row.paths[stem][0], row.digests[stem][0], target)
    for path, digest in zip(row.paths[stem][1:], row.digests[stem][1:], strict=True):
        audio = _sum(audio, _read(root / path, digest, target))
    lap("read")
    if not row.files_augmented and row.augmentation != "{}":
        audio = augment(audio, target.rate, Augmentation.from_json(row.augmentation), is_drums(row, stem))
        lap("augment")
    missing = max(0, row.samples - audio.shape[1])
    return np.pad(audio, ((0, 0), (0, missing))) if missing else audio[:, : row.samples]


def is_drums(row: PlanRow, stem: int) -> bool:
    """Drums by program, or by class where there is no program."""
    program = row.programs[stem]
    return program == DRUMS or (program < 0 and row.instruments[stem] == "Percussive")


def _read(path: Path, digest: str, target: Target) -> Audio:
    with reading(path, target):
        loaded = load_stem(path, target)
        changed = isinstance(loaded, Reject) or content_digest(path) != digest
    if isinstance(loaded, Reject) or changed:
        what = loaded.reason if isinstance(loaded, Reject) else "other content"
        raise PrepError(
            f"{path} has changed since it was scanned ({what}). "
            "Run the same build again (with --rescan, where the file kept its size and time), or name the corpus that "
            "was scanned: --root."
        )
    return loaded[0]


def _sum(one: Audio, other: Audio) -> Audio:
    """Of two lengths, the longer."""
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    total = np.array(one, order="C")  # one may be a view in another order, which would be kept
    total[:, : other.shape[1]] += other
    return total
