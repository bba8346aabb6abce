"""Which pairs may be drawn: what a target may hear, how many stems of it, and where both of them sound.

Levels are (T50,) in dB, 50 Hz; a start is the frame at which the heard crop begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shards import Dataset, Record
from train.config import Batches
from train.errors import DataError


@dataclass(frozen=True)
class Law:
    """The law of pairs, the build's and the config's: classes that are no targets, classes that are never heard, and in
    row i how probable mixes of 1, 2, ... stems are where i + 1 stems may be heard."""

    exclude_targets: frozenset[str]
    exclude_contexts: frozenset[str]
    size_probabilities: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, index: dict[str, Any], c: Batches) -> Self:
        """Of dataset.json. Raises DataError where an earlier Greenroom wrote that, or a class cannot be a target."""
        try:
            pairs = index["pairs"]
            rows = tuple(map(tuple, pairs["size_probabilities"]))
            excluded, contexts = frozenset(pairs["exclude_targets"]), frozenset(pairs["exclude_contexts"])
        except (KeyError, TypeError):
            raise DataError(
                "dataset.json does not say which pairs may be drawn (`pairs`): an earlier Greenroom built it; "
                "run the same `prep build` again"
            ) from None
        for setting, names in (("targets", c.targets), ("exclude_targets", c.exclude_targets)):
            if unknown := [name for name in names if name not in index["classes"]]:
                raise DataError(
                    f"batches.{setting} has {unknown[0]!r}, and the dataset's classes are {', '.join(index['classes'])}"
                )
        if refused := sorted(excluded.intersection(c.targets)):
            raise DataError(f"batches.targets has {refused[0]!r}, which the build excludes (exclude_targets)")
        others = frozenset(index["classes"]).difference(c.targets) if c.targets else frozenset()
        return cls(excluded | others | frozenset(c.exclude_targets), contexts, rows)

    def targets(self, record: Record) -> list[int]:
        return [stem for stem, name in enumerate(record.meta["instruments"]) if name not in self.exclude_targets]

    def heard(self, record: Record, target: int) -> tuple[list[int], tuple[float, ...]]:
        """The streams that `target` may hear, by their rows in `members`, and how probable mixes of 1, 2, ... stems
        are. A song with one stem that may be heard has no row. Raises DataError where it has too many for the law."""
        contexts = {stem for stem, name in enumerate(record.meta["instruments"]) if name not in self.exclude_contexts}
        contexts -= {target}
        if not contexts:
            return [], ()
        if len(contexts) > len(self.size_probabilities):
            raise DataError(
                f"{record.id} has {len(contexts)} stems to hear beside a target, and dataset.json's "
                f"pairs.size_probabilities goes up to {len(self.size_probabilities)}; run the same `prep build` again"
            )
        rows = [row for row, members in enumerate(record.meta["members"]) if contexts.issuperset(members)]
        return rows, self.size_probabilities[len(contexts) - 1]


def draw_row(members: list[list[int]], rows: list[int], law: Sequence[float], rng: np.random.Generator) -> int:
    """One of `rows`: a size by the law (the probabilities of 1, 2, ...), then one of the streams nearest to that size.

    Not each size is stored for each target; of two sizes equally near, the larger is taken.
    """
    wanted = 1 + int(rng.choice(len(law), p=law))
    size = min((len(members[row]) for row in rows), key=lambda size: (abs(size - wanted), -size))
    return int(rng.choice([row for row in rows if len(members[row]) == size]))


def valid_starts(
    heard: NDArray[np.floating],
    target: NDArray[np.floating],
    starts: NDArray[np.int64],
    c: Batches,
    levels_a_frame: float,
) -> NDArray[np.int64]:
    """Those of `starts` (rising) at which the heard crop and the target's, `anticipation_frames` later, sound together
    in `active_share` of their length; given both streams' levels, past whose end is silence."""
    if not len(starts):
        return starts
    first = np.rint(starts * levels_a_frame).astype(np.int64)
    last = np.maximum(np.rint((starts + c.crop_frames) * levels_a_frame).astype(np.int64), first + 1)
    begin, end, shift = int(first[0]), int(last[-1]), round(c.anticipation_frames * levels_a_frame)
    silence = np.float32(c.silence_db)  # levels are float16 on disk; compared alike wherever they come from
    target = target[begin + shift : end + shift]
    together = np.zeros(end - begin + 1, bool)
    together[1 : len(target) + 1] = (heard[begin : begin + len(target)] > silence) & (target > silence)
    total = np.cumsum(together)
    shares = (total[last - begin] - total[first - begin]) / (last - first)
    return starts[shares >= c.active_share]


def index_pairs(
    train: Dataset, c: Batches, levels_a_frame: float, law: Law
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, int], int]:
    """Every block that holds a valid start; the record and stem of each target with which a song's true start is valid;
    how many blocks have a target of which class; and how many target stems have no valid start. DataError says why
    there is none at all."""
    longest = max(record["stems"].shape[1] for record in train)  # as receipts say: no shard is touched
    needed = c.crop_frames + c.anticipation_frames
    if longest < needed:
        raise DataError(
            f"batches.crop_frames + anticipation_frames is {needed}, and the longest song of the train split has "
            f"{longest} frames; lower batches.crop_frames, or build from longer songs"
        )
    found: list[tuple[int, int, int]] = []
    at_starts: list[tuple[int, int]] = []
    classes: Counter[str] = Counter()
    dropped = 0
    for number, record in enumerate(train):
        starts = starts_of(record, c, 0, record.meta["frames"])
        levels = record["levels"][:].astype(np.float32)  # read once
        for stem in law.targets(record):
            rows, _ = law.heard(record, stem)
            rows.sort(key=lambda row: -len(record.meta["members"][row]))
            blocks = _blocks((levels[row] for row in rows), levels[stem], starts, c, levels_a_frame)
            found += [(number, stem, block * c.crop_frames) for block in blocks]
            classes[record.meta["instruments"][stem]] += len(blocks)
            dropped += not blocks
            at_start = blocks[:1] == [0] and _blocks(
                (levels[row] for row in rows), levels[stem], starts[:1], c, levels_a_frame
            )
            at_starts += [(number, stem)] if at_start else []
    if not found:
        raise DataError(
            f"the train split's {len(train)} songs hold no pair of mix and target{_of_classes(c)}: a song of {needed} "
            f"frames or more, with two stems, which sound together in {c.active_share:.0%} of a crop; build with more "
            "songs or stems"
        )
    index, song_starts = np.array(found, dtype=np.int64), np.array(at_starts, dtype=np.int64).reshape(-1, 2)
    return index, song_starts, dict(+classes), dropped  # +: those that are there


def _of_classes(c: Batches) -> str:
    named = {"targets": c.targets, "exclude_targets": c.exclude_targets}
    told = "; ".join(f"batches.{name}: {', '.join(classes)}" for name, classes in named.items() if classes)
    return f" ({told})" if told else ""


def _blocks(
    heard: Iterable[NDArray[np.float32]],
    target: NDArray[np.float32],
    starts: NDArray[np.int64],
    c: Batches,
    levels_a_frame: float,
) -> list[int]:
    """The blocks, of crop_frames starts each, that hold a valid start for one of the streams `heard`, tried in turn."""
    blocks: list[int] = []
    anything = np.full(target.shape, np.inf, np.float32)
    left = valid_starts(anything, target, starts, c, levels_a_frame)  # where the target itself sounds
    for levels in heard:
        valid = valid_starts(levels, target, left, c, levels_a_frame)
        if len(valid):
            blocks += np.unique(valid // c.crop_frames).tolist()
            left = left[~np.isin(left // c.crop_frames, blocks)]
    return sorted(blocks)


def starts_of(record: Record, c: Batches, first: int, count: int) -> NDArray[np.int64]:
    """The starts from `first` on, at most `count`, from which mix and shifted target reach their end."""
    last = record.meta["frames"] - c.crop_frames - c.anticipation_frames
    return np.arange(first, min(first + count, last + 1))
