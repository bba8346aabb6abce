from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Loader, ShardError, Windows

UNEVEN = [5, 0, 1, 40, 3, 0, 0, 7, 900, 2]


def shard_of_index(counts: list[int]) -> list[int]:
    return np.repeat(np.arange(len(counts)), counts).tolist()


def windows_of(counts: list[int], window: int, epochs: int, seed: int = 3) -> list[list[set[int]]]:
    """Which shards each window of each epoch touches, found by cutting the epoch where all its shards are used up."""
    owner, size = shard_of_index(counts), sum(counts)
    indices = Windows(counts, window).places(np.arange(epochs * size), seed)[1].reshape(epochs, size)
    found = []
    for epoch in indices.tolist():
        left, open_shards, cut = Counter(owner), set(), [set()]
        for index in epoch:
            open_shards.add(owner[index])
            cut[-1].add(owner[index])
            left[owner[index]] -= 1
            if not any(left[shard] for shard in open_shards) and len(cut[-1]) == window:
                cut.append(set())
        found.append([shards for shards in cut if shards])
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any), st.integers(1, 5), st.integers(0, 2**64 - 1))
def test_each_index_once_an_epoch_and_few_shards_at_a_time(counts: list[int], window: int, seed: int) -> None:
    size = sum(counts)
    epochs, indices = Windows(counts, window).places(np.arange(3 * size), seed)
    assert epochs.tolist() == np.repeat(np.arange(3), size).tolist()
    assert all(sorted(epoch) == list(range(size)) for epoch in indices.reshape(3, size).tolist())
    filled = sum(count > 0 for count in counts)
    for epoch in windows_of(counts, window, 3, seed):
        assert all(len(shards) <= window for shards in epoch)
        assert len(epoch) == -(-filled // window)


def test_no_shard_is_touched_again_once_its_window_is_over() -> None:
    for epoch in windows_of(UNEVEN, 3, 20):
        assert sorted(shard for shards in epoch for shard in shards) == [0, 2, 3, 4, 7, 8, 9]


def test_shards_and_their_indices_are_mixed_and_anew_each_epoch() -> None:
    epochs = windows_of([8] * 12, 3, 5)
    assert len({str(epoch) for epoch in epochs}) == 5
    assert len({frozenset(shards) for epoch in epochs for shards in epoch}) > 15
    first = Windows([100] * 12, 3).places(np.arange(300), 3)[1] // 100
    assert max(np.bincount(first[:30], minlength=12)) < 22  # 10 of each are expected


def test_windows_of_one_size_are_permuted_differently() -> None:
    within = Windows([50] * 6, 1).places(np.arange(300), 3)[1].reshape(6, 50) % 50
    assert len({tuple(window) for window in within.tolist()}) == 6


def test_one_window_of_all_shards_is_a_shuffle_of_all() -> None:
    order = Windows([100] * 10, 10).places(np.arange(1000), 3)[1]
    assert len(set((order[:60] // 100).tolist())) == 10


def test_places_do_not_depend_on_what_else_is_asked() -> None:
    whole = np.stack(Windows(UNEVEN, 2).places(np.arange(9000), 7))
    some = np.array([8999, 3, 3, 957, 958, 959, 4000])
    assert np.array_equal(np.stack(Windows(UNEVEN, 2).places(some, 7)), whole[:, some])


def take(order: Windows, batches: int, state: dict[str, int | str] | None = None, batch_size: int = 4) -> Loader:
    """A loader that has given `batches` batches; one thread ahead, so that some more may have been announced."""
    loader = Loader(order, batch_size, lambda index, rng: index, list, 3, rank=0, world=1, epochs=50)
    if state:
        loader.load_state_dict(state)
    for _ in zip(range(batches), loader, strict=False):
        pass
    return loader


def test_fetch_is_called_once_a_window_with_it_and_the_next() -> None:
    counts, calls = [10, 0, 12, 11, 0, 13, 14], list[list[int]]()
    order = Windows(counts, 2, calls.append)
    for first in range(0, 120, 4):
        order.coming(first, first + 4, 3)
    epochs = windows_of(counts, 2, 3)
    number = [shards for epoch in epochs for shards in epoch]
    assert len(epochs[0]) == 3 and len(calls) == 6
    for at, call in enumerate(calls):
        assert set(call) == number[at] | number[at + 1] and len(call) == len(set(call))
        assert set(call[: len(number[at])]) == number[at]  # what is needed first comes first


def log_of(counts: list[int], window: int, batch_size: int, epochs: int, state: Any = None) -> list[list[int] | int]:
    """Which shards are fetched (lists) and from which shard each draw is, as it happens."""
    log, owner = list[list[int] | int](), shard_of_index(counts)
    draw = lambda index, rng: log.append(owner[index])  # noqa: E731
    loader = Loader(Windows(counts, window, log.append), batch_size, draw, list, 3, rank=0, world=1, epochs=epochs)
    if state:
        loader.load_state_dict(state)
    steps = len(loader)
    assert len(list(loader)) == steps and len([entry for entry in log if isinstance(entry, int)]) == steps * batch_size
    return log


def test_fetch_comes_before_the_first_draw_of_a_window_also_when_resumed() -> None:
    counts = [10, 0, 12, 11, 0, 13, 14]
    log = log_of(counts, 2, 4, 5, take(Windows(counts, 2), 31).state_dict())
    calls = list[list[int]]()
    for entry in log:
        if isinstance(entry, list):
            calls.append(entry)
        else:
            assert entry in [shard for call in calls[-2:] for shard in call]
    assert isinstance(log[0], list) and len(calls) == 15 - 6  # position 124 is in window 6 of 15


def test_windows_smaller_than_a_batch_are_all_announced() -> None:
    fetched = set[int]()
    for entry in log_of([1] * 8, 1, 5, 1):
        if isinstance(entry, list):
            assert len(entry) <= 2
            fetched.update(entry)
        else:
            assert entry in fetched


def test_an_error_of_fetch_reaches_the_caller() -> None:
    def fetch(shards: list[int]) -> None:
        raise OSError("the server went away")

    with pytest.raises(OSError, match="went away"):
        take(Windows(UNEVEN, 2, fetch), 1)


def test_only_the_layouts_at_hand_are_kept() -> None:
    order = Windows([1] * 10, 2)
    order.places(np.arange(1000), 3)
    assert len(order._laid) == 4


def test_the_identity_tells_shards_and_window() -> None:
    assert Windows([3, 4], 1).identity().startswith("windows of 1 of 2 shards, 7 indices (")
    others = [Windows([4, 3], 1), Windows([3, 4], 2), Windows([3, 4, 0], 1), Windows([3, 4], 1)]
    assert [order.identity() == Windows([3, 4], 1).identity() for order in others] == [False, False, False, True]


@pytest.mark.parametrize(("counts", "window"), [([3], 0), ([3, -1], 1)])
def test_impossible_windows(counts: list[int], window: int) -> None:
    with pytest.raises(ShardError, match="windows: window is"):
        Windows(counts, window)


def test_shards_without_indices_are_too_few() -> None:
    with pytest.raises(ShardError, match="0 indices are too few"):
        Loader(Windows([0, 0], 1), 1, lambda index, rng: index, list, 3, rank=0, world=1)
