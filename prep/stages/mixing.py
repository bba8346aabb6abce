"""Mixes: which stems make one, and how loud it is. mix = g * sum(g_i * stem_i).

The mix law (LiveBand draws a target, then a random subset of the rest): for each eligible target, subsets of the other
active stems are drawn, first their size by the size law, then uniformly among the subsets of that size.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prep.stages.loudness import SILENCE_LUFS, ceiling_gain_db

SizeLaw = Literal["uniform", "all"]
Members = tuple[int, ...]


def draw_subset(others: Sequence[int], size_law: SizeLaw, rng: np.random.Generator) -> Members:
    """One non-empty subset of `others`, sorted: "uniform" over the sizes 1 to all, or "all" of them always."""
    if size_law == "all":
        return tuple(sorted(others))
    if size_law != "uniform":
        raise ValueError(f"size law {size_law!r} is not known; it must be uniform or all")
    size = int(rng.integers(1, len(others) + 1))
    chosen = rng.permutation(len(others))[:size]
    return tuple(sorted(others[i] for i in chosen))


def draw_subsets(
    active: Sequence[int],
    targets: Sequence[int],
    subsets_per_target: int,
    size_law: SizeLaw,
    rng: np.random.Generator,
) -> Iterator[tuple[int, Members]]:
    """Every (target, subset) that the law draws, repeats and subsets of one included; targets in rising order."""
    if subsets_per_target < 1:
        raise ValueError(f"subsets_per_target is {subsets_per_target}; it must be at least 1")
    for target in sorted(set(targets)):
        others = sorted(set(active) - {target})
        for _ in range(subsets_per_target if others else 0):
            yield target, draw_subset(others, size_law, rng)


def draw_mixes(
    active: Sequence[int],
    targets: Sequence[int],
    subsets_per_target: int,
    size_law: SizeLaw,
    rng: np.random.Generator,
) -> tuple[Members, ...]:
    """The mixes of one multitrack, each a rising tuple of stem indices, sorted by size and then by members.

    Subsets drawn twice, also for two targets, are one mix; a subset of one is the stem's own stream and is left out.
    Neither the order of `active` nor that of `targets` matters.
    """
    drawn = {members for _, members in draw_subsets(active, targets, subsets_per_target, size_law, rng)}
    mixes = (members for members in drawn if len(members) > 1)
    return tuple(sorted(mixes, key=lambda members: (len(members), members)))


def mix_audio(
    stems: NDArray[np.float32] | Sequence[NDArray[np.float32]], gains_db: Sequence[float], members: Sequence[int]
) -> NDArray[np.float32]:
    """The plain sum of the members, each with its gain: (channels, samples) from n of them. Inputs stay untouched."""
    if len(members) == 0:
        raise ValueError("a mix needs at least one member")
    total = np.zeros(stems[members[0]].shape, np.float32)
    # In rising order, since float sums depend on it
    for member in sorted(members):
        total += stems[member] * np.float32(10 ** (gains_db[member] / 20))
    return total


def mix_gain_db(lufs: float, peak: float, target_lufs: float, offset_db: float = 0.0, ceiling_db: float = 0.0) -> float:
    """The gain g that brings a mix of measured loudness and sample peak to target + offset.

    Where that would pass the ceiling (dBFS) it is attenuated to it, never clipped. Silence stays as it is: 0 dB.
    """
    if lufs <= SILENCE_LUFS:
        return 0.0
    gain_db = target_lufs + offset_db - lufs
    return gain_db + ceiling_gain_db(peak * 10 ** (gain_db / 20), ceiling_db)
