from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Shuffle
from shards.order import permute


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**70))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023, 1024, 1025, 4097, 2**20 + 1])
def test_permute_is_a_bijection_at_the_edges(size: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, 7)), np.arange(size))


@given(st.integers(1, 2**63), st.integers(0, 2**64 - 1), st.data())
def test_huge_sizes_stay_in_range_and_apart(size: int, key: int, data: st.DataObject) -> None:
    indices = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=50))
    sent = permute(np.array(sorted(indices), np.uint64), size, key).tolist()
    assert all(0 <= index < size for index in sent) and len(set(sent)) == len(indices)


def test_the_permutation_never_changes() -> None:
    """A run that is resumed under a later version must find the order that it began with."""
    assert permute(np.arange(10), 10, 1).tolist() == [8, 2, 0, 6, 7, 5, 1, 3, 4, 9]
    assert permute([0, 2**61], 2**62 + 1, 2**64 - 1).tolist() == [1438213563289267282, 2721509083289046785]


def test_one_at_a_time_is_all_at_once() -> None:
    whole = permute(np.arange(100), 100, 5)
    assert [int(permute(index, 100, 5)) for index in range(100)] == whole.tolist()
    assert np.array_equal(permute(np.arange(100).reshape(4, 25), 100, 5), whole.reshape(4, 25))
    assert whole.dtype == np.uint64 and permute([], 100, 5).shape == (0,)


@pytest.mark.parametrize(("size", "bound"), [(6, 58.3), (8, 93.2)])
def test_every_pair_of_places_is_equally_likely(size: int, bound: float) -> None:
    """Chi-square over 8,000 keys of where indices 0 and 1 go; `bound` is the 0.1 % point at size * (size - 1) - 1."""
    counts = Counter(tuple(permute([0, 1], size, key).tolist()) for key in range(8000))
    pairs = list(permutations(range(size), 2))
    expected = 8000 / len(pairs)
    assert sum((counts[pair] - expected) ** 2 / expected for pair in pairs) < bound


def test_neighbours_do_not_stay_neighbours() -> None:
    order = permute(np.arange(5000), 5000, 3).tolist()
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 20  # 2 are expected
    assert permute(np.arange(5000), 5000, 4).tolist() != order


@pytest.mark.parametrize("index", [-1, 5])
def test_out_of_range(index: int) -> None:
    with pytest.raises(ValueError, match=rf"index is {index}; it must be in 0 … 4"):
        permute([0, index, 3], 5, 0)


def test_a_shuffle_visits_each_index_once_an_epoch() -> None:
    epochs, indices = Shuffle(23).places(np.arange(5 * 23), 7)
    assert epochs.tolist() == np.repeat(np.arange(5), 23).tolist()
    rounds = indices.reshape(5, 23).tolist()
    assert all(sorted(epoch) == list(range(23)) for epoch in rounds)
    assert len({tuple(epoch) for epoch in rounds}) == 5
    assert Shuffle(23).places(np.arange(23), 8)[1].tolist() != rounds[0]


def test_places_do_not_depend_on_what_else_is_asked() -> None:
    whole = np.stack(Shuffle(23).places(np.arange(200), 7))
    some = np.array([150, 3, 3, 199, 22, 23])
    assert np.array_equal(np.stack(Shuffle(23).places(some, 7)), whole[:, some])


def test_far_positions_are_as_quick() -> None:
    size = 10**15
    epochs, indices = Shuffle(size).places(np.array([0, 3 * size - 1, 9000 * size]), 0)
    assert epochs.tolist() == [0, 2, 9000] and all(0 <= index < size for index in indices.tolist())
