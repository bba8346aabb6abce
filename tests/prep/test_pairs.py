"""What pairs cost, against counting them one by one; and the distance to the law, against training's own draws."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from prep.draws import rng_for
from prep.pairs import Cost, Song, lines, pair_costs
from prep.stages.mixing import SizeLaw, draw_mixes, size_probabilities
from train.pairing import draw_row

RNG_OF: Callable[[str, str], np.random.Generator] = partial(rng_for, 3)
SONGS = [
    Song("a", ("bass", "drums", "keys", "lead", "voice"), (0, 1, 2, 3), (0, 1, 2, 3, 4), 1000),
    Song("b", ("bass", "drums", "keys"), (0, 2), (0, 1), 5000),
    Song("c", ("bass", "drums"), (0, 1), (1,), 300),
]


def song(stems: int, samples: int = 44100) -> Song:
    return Song("x", tuple(f"S{i:02d}" for i in range(stems)), tuple(range(stems)), tuple(range(stems)), samples)


def stored(song: Song, r: int, law: SizeLaw) -> list[tuple[int, ...]]:
    """Members of all streams of a multitrack, stems first."""
    rng_of = partial(RNG_OF, song.id)
    return [(i,) for i in range(len(song.names))] + [
        *draw_mixes(song.names, song.targets, song.contexts, r, law, rng_of)
    ]


def pairs_of(song: Song, r: int, law: SizeLaw) -> set[tuple[int, tuple[int, ...]]]:
    heard = [members for members in stored(song, r, law) if set(members) <= set(song.contexts)]
    return {(target, members) for target in song.targets for members in heard if target not in members}


@pytest.mark.parametrize("law", ["uniform", "coin", "all", (1.0, 0.0, 2.0)], ids=str)
def test_costs_are_those_counted_pair_by_pair(law: SizeLaw) -> None:
    costs = pair_costs(iter(SONGS), law, RNG_OF, 0.5, (1, 3, 8))
    assert [cost.r for cost in costs] == [1, 3, 8]
    for cost in costs:
        pairs = [pairs_of(song, cost.r, law) for song in SONGS]
        streams = [len(stored(song, cost.r, law)) for song in SONGS]
        assert cost.pairs == pytest.approx(sum(map(len, pairs)) / 3)
        assert cost.streams == pytest.approx(sum(streams) / 3)
        assert cost.encodings_per_pair == pytest.approx(sum(streams) / sum(map(len, pairs)))
        size = sum(number * song.samples * 0.5 for number, song in zip(streams, SONGS, strict=True))
        assert cost.bytes_per_pair == pytest.approx(size / sum(map(len, pairs)))


@pytest.mark.parametrize("law", ["uniform", "coin", "all", (1.0, 0.0, 2.0)], ids=str)
def test_baked_pairs_are_two_streams_each(law: SizeLaw) -> None:
    for cost in pair_costs(SONGS, law, RNG_OF, 0.5, (1, 3, 8, 64)):
        baked, size = 0, 0.0
        for song in SONGS:
            for target in song.targets:
                others = [i for i in song.contexts if i != target]
                laws = size_probabilities(len(others), law) if others else []
                possible = [c for s, p in enumerate(laws, 1) if p for c in combinations(others, s)]
                baked += len(possible[: cost.r])
                size += len(possible[: cost.r]) * 2 * song.samples * 0.5
        assert cost.baked_pairs == pytest.approx(baked / 3)
        assert cost.baked_bytes_per_pair == pytest.approx(size / baked)
        assert cost.baked_encodings_per_pair == 2


@pytest.mark.parametrize("law", ["uniform", "coin", (1.0, 0.0, 2.0)], ids=str)
def test_distance_is_that_of_trainings_own_draws(law: SizeLaw) -> None:
    (cost,) = pair_costs([song(5)], law, RNG_OF, 1.0, (1,))
    members, rng, wanted = [list(row) for row in stored(song(5), 1, law)], np.random.default_rng(0), 0.0
    for target in range(5):
        allowed = [row for row, subset in enumerate(members) if target not in subset]
        probabilities = size_probabilities(4, law)
        sizes = Counter(len(members[draw_row(members, allowed, probabilities, rng)]) for _ in range(2000))
        wanted += sum(abs(sizes[i + 1] / 2000 - p) for i, p in enumerate(probabilities)) / 2 / 5
    assert cost.distance == pytest.approx(wanted, abs=0.02) and cost.distance > 0.1


def test_more_subsets_give_more_pairs_and_come_nearer_to_the_law() -> None:
    costs = pair_costs([song(8), song(12)], "uniform", RNG_OF, 1.0)
    assert [cost.r for cost in costs] == [1, 2, 4, 8]
    for before, after in pairwise(costs):
        assert after.pairs > before.pairs and after.distance < before.distance
    assert all(cost.encodings_per_pair < 0.5 for cost in costs)
    assert pair_costs([song(4)], "uniform", RNG_OF, 1.0, (60,))[0].distance == 0  # every subset is there
    assert pair_costs([song(4)], "uniform", RNG_OF, 1.0, (60,))[0].pairs == 4 * 7


def test_all_the_rest_is_stored_whatever_r() -> None:
    for cost in pair_costs([song(4)], "all", RNG_OF, 1.0):
        # a target hears its three lone stems, and the mix of them
        assert (cost.pairs, cost.streams, cost.baked_pairs, cost.distance) == (4 * (3 + 1), 8, 4, 0)


def test_without_pairs_there_are_no_costs() -> None:
    assert pair_costs([], "uniform", RNG_OF, 1.0) == []
    assert pair_costs([song(1), Song("y", ("a", "b"), (0,), (0,), 9)], "uniform", RNG_OF, 1.0) == []
    assert lines([]) == []


def test_the_table_has_a_line_for_each_r() -> None:
    values: dict[str, Any] = {"pairs": 7.25, "streams": 3.0, "bytes_per_pair": 1.5e6, "encodings_per_pair": 0.4}
    values |= {"baked_pairs": 20.0, "baked_bytes_per_pair": 2e7, "baked_encodings_per_pair": 2.0, "distance": 0.125}
    head, names, *rows = lines([Cost(r=1, **values), Cost(r=16, **values)])
    assert [row.split()[0] for row in rows] == ["1", "16"]
    assert rows[0].split()[1:] == ["3.0", "7.2", "20.0", "0.40", "1.50", "2.00", "20.00", "0.125"]
    assert len({len(row) for row in rows}) == 1 and max(map(len, (head, names, *rows))) < 120
