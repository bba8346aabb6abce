from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import permute


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**70))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023, 1024, 1025, 4097])
def test_permute_is_a_bijection_at_the_edges(size: int) -> None:
    assert sorted(permute(index, size, 7) for index in range(size)) == list(range(size))


@given(st.integers(1, 2**63), st.integers(0, 2**64 - 1), st.data())
def test_huge_sizes_stay_in_range(size: int, key: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    assert 0 <= permute(index, size, key) < size


@pytest.mark.parametrize(("size", "bound"), [(6, 58.3), (8, 93.2)])
def test_every_pair_of_places_is_equally_likely(size: int, bound: float) -> None:
    """Chi-square over 8,000 keys of where indices 0 and 1 go; `bound` is the 0.1 % point at size * (size - 1) - 1."""
    counts = Counter((permute(0, size, key), permute(1, size, key)) for key in range(8000))
    pairs = list(permutations(range(size), 2))
    expected = 8000 / len(pairs)
    assert sum((counts[pair] - expected) ** 2 / expected for pair in pairs) < bound


def test_neighbours_do_not_stay_neighbours() -> None:
    order = [permute(index, 5000, 3) for index in range(5000)]
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 20  # 2 are expected
    assert [permute(index, 5000, 4) for index in range(5000)] != order


@pytest.mark.parametrize("index", [-1, 5])
def test_out_of_range(index: int) -> None:
    with pytest.raises(ValueError, match=rf"index is {index}; it must be in 0 … 4"):
        permute(index, 5, 0)
