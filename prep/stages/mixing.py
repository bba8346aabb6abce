"""Mixes: which stems make one, and how loud it is. mix = g * sum(g_i * stem_i).

The mix law (LiveBand draws a target, then a random subset of the rest): for each eligible target, subsets of the other
stems that may be heard are drawn, first their size by the size law, then uniformly among the subsets of that size.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prep.stages.loudness import SILENCE_LUFS, ceiling_gain_db, integrated_lufs

SizeLaw = Literal["uniform", "all", "coin"] | Sequence[float]
Members = tuple[int, ...]
# by number, all of them or only those that are asked for
Stems = NDArray[np.float32] | Sequence[NDArray[np.float32]] | Mapping[int, NDArray[np.float32]]


def size_probabilities(others: int, law: SizeLaw) -> NDArray[np.float64]:
    """(others,): how probable a subset of 1, 2, ... of `others` stems is, the empty one excluded.

    uniform: each size alike. all: every other stem (StreamMusicGen's code). coin: each of them with probability 1/2,
    given that one is in. A list weighs the sizes 1, 2, ...; sizes beyond it have no weight, and where no possible size
    has one, all the others are taken.
    """
    if others < 1:
        raise ValueError(f"a subset is drawn from {others} stems; there must be at least 1")
    if isinstance(law, str) and law not in ("uniform", "all", "coin"):
        raise ValueError(f"size law {law!r} is not known; it must be uniform, all, coin or a list of weights")
    weights = np.zeros(others)
    if law == "uniform":
        weights[:] = 1.0
    elif law == "coin":
        weights[:] = [math.comb(others, size) / 2**others for size in range(1, others + 1)]
    elif law != "all":
        weights[: len(law)] = law[:others]
    if not weights.any():
        weights[-1] = 1.0
    return weights / weights.sum()


def draw_subset(others: Sequence[int], law: SizeLaw, rng: np.random.Generator) -> Members:
    """One non-empty subset of `others`, sorted. The draw goes by the places in `others`, whatever stands there."""
    size = 1 + int(rng.choice(len(others), p=size_probabilities(len(others), law)))
    chosen = rng.permutation(len(others))[:size]
    return tuple(sorted(others[i] for i in chosen))


def draw_subsets(
    names: Sequence[str],
    targets: Sequence[int],
    contexts: Sequence[int],
    subsets_per_target: int,
    law: SizeLaw,
    rng_of: Callable[[str], np.random.Generator],
) -> Iterator[tuple[int, Members]]:
    """Every (target, subset) that the law draws, repeats and subsets of one included; targets in rising order.

    `names` are all the stems'; `targets` and `contexts` say which of them may be which. `rng_of(stage)` gives a fresh
    generator. Each draw has its own, named by the target and the draw's number, and goes through the contexts by name:
    so more draws a target hold the fewer, and the order of the stems changes nothing. A target that has no other
    context has no subsets.
    """
    if subsets_per_target < 1:
        raise ValueError(f"subsets_per_target is {subsets_per_target}; it must be at least 1")
    by_name = sorted(set(contexts), key=lambda stem: names[stem])
    for target in sorted(set(targets)):
        others = [stem for stem in by_name if stem != target]
        for number in range(subsets_per_target if others else 0):
            yield target, draw_subset(others, law, rng_of(f"mixing:{names[target]}:{number}"))


def draw_mixes(
    names: Sequence[str],
    targets: Sequence[int],
    contexts: Sequence[int],
    subsets_per_target: int,
    law: SizeLaw,
    rng_of: Callable[[str], np.random.Generator],
) -> tuple[Members, ...]:
    """The mixes of one multitrack, each a rising tuple of stem indices, sorted by size and then by members.

    Subsets drawn twice, also for two targets, are one mix; a subset of one is the stem's own stream and is left out.
    """
    drawn = {members for _, members in draw_subsets(names, targets, contexts, subsets_per_target, law, rng_of)}
    mixes = (members for members in drawn if len(members) > 1)
    return tuple(sorted(mixes, key=lambda members: (len(members), members)))


def mix_audio(stems: Stems, gains_db: Sequence[float], members: Sequence[int]) -> NDArray[np.float32]:
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

    Where that would pass the ceiling (dBFS) it is attenuated to it, never clipped. Silence is not amplified.
    """
    gain_db = target_lufs + offset_db - lufs if lufs > SILENCE_LUFS else 0.0
    return gain_db + ceiling_gain_db(peak * 10 ** (gain_db / 20), ceiling_db)


def evaluation_mix(
    inputs: Sequence[NDArray[np.float32]],
    played: NDArray[np.float32],
    rate: int,
    target_lufs: float = -18.0,
    played_gain_db: float = 5.0,
    ceiling_db: float = 20 * math.log10(0.99),
) -> NDArray[np.float32]:
    """What StreamMusicGen's listeners and scores are given: (channels, samples) of inputs and played stem together.

    Every input comes to the same loudness, the played stem `played_gain_db` over each of them, the sum to `target_lufs`
    or, where its sample peak would pass the ceiling, below. What is silent, under the gate of -70 LUFS, is not
    amplified. Raises ValueError where shapes differ, for NaN, infinity, and more than two channels.
    """
    stems = [*inputs, played]
    if len({stem.shape for stem in stems}) > 1:
        shapes = ", ".join(str(stem.shape) for stem in stems)
        raise ValueError(f"inputs and played stem must have equal channels and lengths; they have {shapes}")
    loudness = [integrated_lufs(stem, rate) for stem in stems]
    over_db = [0.0] * len(inputs) + [played_gain_db]
    gains_db = [mix_gain_db(lufs, 0.0, target_lufs, over) for lufs, over in zip(loudness, over_db, strict=True)]
    mix = mix_audio(stems, gains_db, range(len(stems)))
    peak = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32(10 ** (mix_gain_db(integrated_lufs(mix, rate), peak, target_lufs, 0.0, ceiling_db) / 20))
