import threading
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Loader, ShardError

Draw = tuple[int, float]


def make(size: int = 23, batch_size: int = 3, rank: int = 0, world: int = 1, seed: int = 5) -> Loader[Draw, list[Draw]]:
    return Loader(size, batch_size, lambda index, rng: (index, rng.random()), list, seed, rank, world)


def take(loader: Loader[Draw, list[Draw]], steps: int) -> list[list[Draw]]:
    batches: Iterator[list[Draw]] = iter(loader)
    taken = list(islice(batches, steps))
    batches.close()  # type: ignore[attr-defined]
    return taken


def together(size: int, batch_size: int, world: int, steps: int, state: dict[str, int] | None = None) -> list[Draw]:
    """What all ranks draw in `steps` steps, in the order of the global batches."""
    loaders = [make(size, batch_size, rank, world) for rank in range(world)]
    for loader in loaders:
        if state:
            loader.load_state_dict(state)
    ranks = [take(loader, steps) for loader in loaders]
    assert {len(batches) for batches in ranks} == {steps}
    assert len({str(loader.state_dict()) for loader in loaders}) == 1
    return [draw for step in range(steps) for batches in ranks for draw in batches[step]]


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (3, 1), (2, 4), (5, 2), (23, 1)])
def test_each_epoch_visits_each_index_once_over_all_ranks(batch_size: int, world: int) -> None:
    size = 23
    steps = -(-2 * size // (batch_size * world))
    indices = [index for index, _ in together(size, batch_size, world, steps)]
    assert sorted(indices[:size]) == sorted(indices[size : 2 * size]) == list(range(size))
    assert indices[:size] != indices[size : 2 * size]


def test_the_order_does_not_depend_on_the_world() -> None:
    assert together(23, 6, 1, 8) == together(23, 3, 2, 8) == together(23, 1, 6, 8)


def test_a_draw_depends_on_seed_epoch_and_index_alone() -> None:
    first = dict(together(23, 1, 1, 23))
    assert dict(together(23, 7, 1, 3)).items() <= first.items()
    later = dict(together(23, 1, 1, 46)[23:])
    assert all(first[index] != later[index] for index in range(23))
    other = dict(draw for batch in take(make(batch_size=1, seed=6), 23) for draw in batch)
    assert all(first[index] != other[index] for index in range(23))


def test_resume_gives_the_very_same_remaining_batches() -> None:
    whole = take(make(), 20)
    for step in (1, 7, 8, 19):
        loader = make()
        assert take(loader, step) == whole[:step]
        resumed = make()
        resumed.load_state_dict(loader.state_dict())
        assert resumed.state_dict() == loader.state_dict()
        assert take(resumed, 20 - step) == whole[step:]
        assert take(loader, 20 - step) == whole[step:]  # a second iteration goes on as well


@settings(max_examples=40, deadline=None)
@given(
    st.integers(40, 90),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_another_world_finishes_the_epoch(size: int, before: tuple[int, int], after: tuple[int, int]) -> None:
    batch_size, world = before
    steps = size // (2 * batch_size * world)
    loader = make(size, batch_size, world - 1, world)
    take(loader, steps)
    seen = together(size, batch_size, world, steps)
    rest = together(size, *after, -(-(size - len(seen)) // (after[0] * after[1])), loader.state_dict())
    assert sorted(index for index, _ in seen + rest[: size - len(seen)]) == list(range(size))


def test_state_counts_what_was_handed_out_not_what_was_drawn_ahead() -> None:
    loader = make()
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.state_dict() == {"seed": 5, "size": 23, "epoch": 0, "position": 6}
    for _ in range(6):
        next(batches)
    assert (loader.epoch, loader.position) == (1, 1)
    batches.close()  # type: ignore[attr-defined]


def test_too_few_indices() -> None:
    with pytest.raises(
        ShardError, match=r"7 indices are too few for one step of 4 ranks with batch_size 2 \(8\); lower"
    ):
        make(size=7, batch_size=2, world=4)
    make(size=8, batch_size=2, world=4)


@pytest.mark.parametrize("setting", [{"batch_size": 0}, {"rank": 2, "world": 2}, {"rank": -1}, {"seed": -1}])
def test_impossible_settings(setting: dict[str, int]) -> None:
    with pytest.raises(ShardError, match="must be at least 1, rank in 0 … world - 1"):
        make(**setting)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seed": 6, "size": 23, "epoch": 0, "position": 0}, "of seed 6 and 23 indices, this loader has seed 5 and 23"),
        ({"seed": 5, "size": 24, "epoch": 0, "position": 0}, "of seed 5 and 24 indices"),
        ({"seed": 5, "size": 23, "epoch": 0, "position": 23}, "epoch 0 and position 23"),
        ({"seed": 5, "size": 23, "epoch": 0}, "lacks seed, size, epoch or position"),
    ],
)
def test_a_state_of_something_else(state: dict[str, int], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        make().load_state_dict(state)


def test_a_draw_that_raises_surfaces_in_the_consumer() -> None:
    order = [draw[0] for batch in take(make(), 7) for draw in batch]

    def draw(index: int, rng: np.random.Generator) -> int:
        if index == order[7]:
            raise OSError("the disk went away")
        return index

    loader = Loader(23, 3, draw, list, 5)
    batches = iter(loader)
    assert [next(batches), next(batches)] == [order[:3], order[3:6]]
    with pytest.raises(OSError, match="went away") as caught:
        next(batches)
    assert f"while drawing index {order[7]} of epoch 0, seed 5" in caught.value.__notes__
    assert loader.position == 6
    assert not _threads()


def test_a_collate_that_raises_surfaces_too() -> None:
    def collate(draws: list[Draw]) -> None:
        raise ValueError("ragged")

    with pytest.raises(ValueError, match="ragged"):
        next(iter(Loader(23, 3, lambda index, rng: (index, 0.0), collate, 5)))


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


def test_the_thread_ends_with_the_iterator() -> None:
    loader = make()
    batches = iter(loader)
    next(batches)
    assert len(_threads()) == 1
    batches.close()  # type: ignore[attr-defined]
    assert not _threads()
    for _ in loader:
        break
    assert not _threads()


def test_one_iteration_at_a_time() -> None:
    loader = make()
    batches = iter(loader)
    next(batches)
    with pytest.raises(ShardError, match="is being iterated; close that iterator"):
        next(iter(loader))
    with pytest.raises(ShardError, match="is being iterated"):
        loader.load_state_dict(loader.state_dict())
    batches.close()  # type: ignore[attr-defined]
    assert len(take(loader, 2)) == 2


def test_no_more_than_ahead_batches_wait() -> None:
    drawn: list[int] = []
    third = threading.Event()

    def draw(index: int, rng: np.random.Generator) -> int:
        drawn.append(index)
        if len(drawn) == 5:
            third.set()
        return index

    batches = iter(Loader(100, 1, draw, list, 5, ahead=3))
    next(batches)
    assert third.wait(5)  # one handed out, three in the queue, one in hand
    batches.close()  # type: ignore[attr-defined]
    assert len(drawn) == 5
