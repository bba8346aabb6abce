"""How many mixes are enough: what r subsets a target give and cost, beside pairs that are baked.

A pair is a target and a context that does not hold it. Streams: every stem is encoded once and every drawn mix once,
and every stored stream without the target is a context for it. Baked: a pair is two encodings of its own, as in
StreamMusicGen's dumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prep.stages.mixing import Members, SizeLaw, draw_subsets, size_probabilities


@dataclass(frozen=True)
class Song:
    """One multitrack, as far as pairs go: all stems' names, and which of them may be targets and contexts."""

    id: str
    names: tuple[str, ...]
    targets: tuple[int, ...]
    contexts: tuple[int, ...]
    samples: int


@dataclass(frozen=True)
class Cost:
    """Of `r` subsets a target: `pairs` and `streams` are means over the multitracks, what one pair costs is total by
    total. `baked_pairs`: as many as r contexts of its own a target give, if no two are alike.

    `distance`: how far the sizes that training draws (the nearest that is stored) are from the law's: total variation,
    mean over the targets. That is how often a drawn size is not stored.
    """

    r: int
    pairs: float
    streams: float
    bytes_per_pair: float
    encodings_per_pair: float
    baked_pairs: float
    baked_bytes_per_pair: float
    baked_encodings_per_pair: float
    distance: float


@dataclass(frozen=True)
class _Count:
    """Of one multitrack; a distance for each target that has another context."""

    samples: int
    streams: int
    pairs: int
    baked_pairs: int
    distances: tuple[float, ...]


def pair_costs(
    songs: Iterable[Song],
    law: SizeLaw,
    rng_of: Callable[[str, str], np.random.Generator],
    bytes_per_sample: float,
    counts: Sequence[int] = (1, 2, 4, 8),
) -> list[Cost]:
    """A Cost for each r of `counts`, by the very draws of a build; none where the songs give no pair.

    `rng_of(id, stage)` is the build's; `bytes_per_sample` is what one sample of one stream comes to in a shard.
    """
    counted: dict[int, list[_Count]] = {r: [] for r in counts}
    for song in songs:
        drawn = _draws(song, max(counts), law, rng_of)
        for r, of_songs in counted.items():
            mixes = {subset for subsets in drawn.values() for subset in subsets[:r] if len(subset) > 1}
            of_songs.append(_count(song, mixes, r, law))
    return [_cost(r, of_songs, bytes_per_sample) for r, of_songs in counted.items() if any(c.pairs for c in of_songs)]


def _draws(
    song: Song, r: int, law: SizeLaw, rng_of: Callable[[str, str], np.random.Generator]
) -> dict[int, list[Members]]:
    """Each target's subsets in the order of their numbers, so that the first ones are those of a smaller r."""
    drawn: dict[int, list[Members]] = {}
    stages = draw_subsets(song.names, song.targets, song.contexts, r, law, lambda stage: rng_of(song.id, stage))
    for target, members in stages:
        drawn.setdefault(target, []).append(members)
    return drawn


def _count(song: Song, mixes: set[Members], r: int, law: SizeLaw) -> _Count:
    pairs, baked, distances = 0, 0, []
    for target in song.targets:
        others = len({*song.contexts} - {target})
        sizes = [1] * others + [len(members) for members in mixes if target not in members]
        if others:
            wanted = size_probabilities(others, law)
            subsets = sum(math.comb(others, size) for size in range(1, others + 1) if wanted[size - 1])
            pairs += len(sizes)
            baked += min(r, subsets)
            # a size that is not stored gives its probability to one that is, so no stored one is drawn too rarely
            distances.append(float(sum(p for size, p in enumerate(wanted, start=1) if size not in sizes)))
    return _Count(song.samples, len(song.names) + len(mixes), pairs, baked, tuple(distances))


def _cost(r: int, songs: list[_Count], bytes_per_sample: float) -> Cost:
    pairs, baked = sum(song.pairs for song in songs), sum(song.baked_pairs for song in songs)
    return Cost(
        r=r,
        pairs=pairs / len(songs),
        streams=sum(song.streams for song in songs) / len(songs),
        bytes_per_pair=sum(song.streams * song.samples for song in songs) * bytes_per_sample / pairs,
        encodings_per_pair=sum(song.streams for song in songs) / pairs,
        baked_pairs=baked / len(songs),
        baked_bytes_per_pair=2 * sum(song.baked_pairs * song.samples for song in songs) * bytes_per_sample / baked,
        baked_encodings_per_pair=2.0,
        distance=float(np.mean([distance for song in songs for distance in song.distances])),
    )


def lines(costs: Sequence[Cost]) -> list[str]:
    """A table for a terminal; nothing where there are no pairs."""
    if not costs:
        return []
    return [
        "subsets         in a multitrack              a pair of streams    a baked pair         distance",
        "a target   streams    pairs    baked pairs   encodings    MB      encodings    MB      of the law",
        *(
            f"{c.r:>8} {c.streams:>9.1f} {c.pairs:>8.1f} {c.baked_pairs:>14.1f} {c.encodings_per_pair:>11.2f}"
            f" {c.bytes_per_pair / 1e6:>5.2f} {c.baked_encodings_per_pair:>14.2f} {c.baked_bytes_per_pair / 1e6:>5.2f}"
            f" {c.distance:>15.3f}"
            for c in costs
        ),
    ]
