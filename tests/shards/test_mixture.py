import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Mixture, ShardError, Shuffle, Windows

SIZES = [50, 7, 300]


def three(weights: tuple[float, ...] = (5, 3, 2)) -> Mixture:
    return Mixture([Shuffle(size) for size in SIZES], weights)


def sources_of(mixture: Mixture, indices: np.ndarray) -> np.ndarray:
    return np.searchsorted(mixture.offsets, indices, "right") - 1


def test_each_source_goes_through_its_own_epochs() -> None:
    mixture = three()
    epochs, indices = mixture.places(np.arange(3000), 7)
    sources = sources_of(mixture, indices)
    assert mixture.size == 357 and mixture.offsets == (0, 50, 57)
    for source, size in enumerate(SIZES):
        own, rounds = indices[sources == source] - mixture.offsets[source], epochs[sources == source]
        whole = len(own) // size
        assert whole >= 2 and rounds.tolist() == np.arange(len(own)).__floordiv__(size).tolist()
        assert all(sorted(epoch) == list(range(size)) for epoch in own[: whole * size].reshape(whole, size).tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=4), st.integers(0, 2**64 - 1), st.data())
def test_any_stretch_keeps_the_weights(weights: list[int], seed: int, data: st.DataObject) -> None:
    mixture = Mixture([Shuffle(1000)] * len(weights), weights)
    first = data.draw(st.integers(0, 3000))
    count = data.draw(st.integers(1, 3000))
    sources = sources_of(mixture, mixture.places(np.arange(first, first + count), seed)[1])
    rounding = count / 1024  # a block's quota is its weight's share of it to within one
    for source, weight in enumerate(weights):
        apart = abs((sources == source).sum() - count * weight / sum(weights))
        assert apart <= rounding + 2 * len(weights)  # a turn too early or late at either end, for each source


def test_whole_blocks_keep_the_quotas_exactly() -> None:
    mixture = three((0.5, 0.25, 0.25))
    for block in range(5):
        sources = sources_of(mixture, mixture.places(np.arange(1024 * block, 1024 * (block + 1)), 1)[1])
        assert np.bincount(sources).tolist() == [512, 256, 256]


def test_the_turns_are_drawn_anew_each_block() -> None:
    mixture = three((1, 1, 1))
    turns = sources_of(mixture, mixture.places(np.arange(8 * 1024), 1)[1]).reshape(8, 1024)
    assert len({str(turn[:50].tolist()) for turn in turns}) == 8
    # where in a block a source's turns fall: at any slot each source is as likely
    first = [sources_of(three((1, 1, 1)), mixture.places(np.array([1024 * b]), 1)[1])[0] for b in range(600)]
    assert min(np.bincount(first)) > 150  # 200 of each are expected, with a deviation of 12


def test_sources_of_one_size_have_orders_of_their_own() -> None:
    mixture = Mixture([Shuffle(100)] * 2, [1, 1])
    _, indices = mixture.places(np.arange(200), 7)
    assert indices[indices < 100].tolist() != (indices[indices >= 100] - 100).tolist()


def test_places_do_not_depend_on_what_else_is_asked() -> None:
    mixture = Mixture([three(), Windows([3, 0, 40], 1)], [1, 4])
    whole = np.stack(mixture.places(np.arange(20000), 7))
    some = np.array([19999, 3, 3, 1023, 1024, 9000])
    again = Mixture([three(), Windows([3, 0, 40], 1)], [1, 4])
    assert np.array_equal(np.stack(again.places(some, 7)), whole[:, some])
    assert len(mixture._blocks) == 8


def test_weights_are_ratios() -> None:
    tenths = three((0.5, 0.3, 0.2)).places(np.arange(3000), 7)[1]
    assert np.array_equal(three((50, 30, 20)).places(np.arange(3000), 7)[1], tenths)
    assert three((0.5, 0.3, 0.2)).identity() == three((5, 3, 2)).identity() != three((5, 2, 3)).identity()


def test_the_identity_is_short_and_tells_the_sources() -> None:
    many = Mixture([Windows([3, 4], 1)] * 500, [1] * 500)
    assert many.identity().startswith("mixture of 500 orders, 3500 indices (") and len(many.identity()) < 200
    assert many.identity() != Mixture([Windows([4, 3], 1)] * 500, [1] * 500).identity()


def test_windows_within_a_mixture_are_announced_before_they_are_drawn() -> None:
    calls: list[list[int]] = []
    shards = [20, 0, 30, 25, 10]
    windows = Windows(shards, 1, calls.append)
    mixture = Mixture([Shuffle(1000), windows], [50, 1])
    owner, fetched = np.repeat(np.arange(5), shards), set[int]()
    for first in range(40000, 50000, 8):
        mixture.coming(first, first + 8, 3)
        fetched.update(shard for call in calls for shard in call)
        _, indices = mixture.places(np.arange(first, first + 8), 3)
        assert {int(owner[index - 1000]) for index in indices if index >= 1000} <= fetched
        if first == 40000:
            assert len(calls) == 1  # told of what comes next, though its turn may be far
    assert 9 <= len(calls) <= 12  # 10,000 / 51 = 196 of 85 an epoch of 4 windows


def test_a_source_is_told_of_its_first_turn_however_far_it_is() -> None:
    calls: list[list[int]] = []
    mixture = Mixture([Shuffle(1000), Windows([5, 6], 1, calls.append)], [1000, 1])
    mixture.coming(0, 1, 3)
    assert mixture.places(np.array([0]), 3)[1] < 1000 and len(calls) == 1


@pytest.mark.parametrize("weights", [(), (1, 2), (1, 2, 0), (1, 2, -1), (1, 2, float("nan")), (1, 2, float("inf"))])
def test_impossible_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ShardError, match=r"mixture: (weights are .* above 0|2 weights, and orders of)"):
        three(weights)


def test_a_weight_that_gets_no_slot_is_told() -> None:
    message = r"weight 0\.1 of source 1 is 0\.341 of 1024 .* at least 1/1024 of the sum \(0\.293\), or leave it out"
    with pytest.raises(ShardError, match=message):
        three((200, 0.1, 100))
    three((200, 0.2, 100))


def test_a_source_without_indices_is_told() -> None:
    with pytest.raises(ShardError, match=r"orders of \[3, 0\] indices; give each order a weight, and leave out those"):
        Mixture([Shuffle(3), Shuffle(0)], [1, 1])
