import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Loader, Mixture, Order, ShardError, Shuffle, Windows
from shards.loader import Seat
from tests.shards.made import generator

Draw = tuple[int, float]


def make(
    size: int = 23, batch_size: int = 3, rank: int = 0, world: int = 1, seed: int = 5, **more: Any
) -> Loader[Draw, list[Draw]]:
    draw = lambda index, rng: (index, rng.random())  # noqa: E731
    return Loader(size, batch_size, draw, list, seed, rank=rank, world=world, **more)


def take(loader: Loader[Draw, list[Draw]], steps: int) -> list[list[Draw]]:
    batches: Iterator[list[Draw]] = iter(loader)
    taken = list(islice(batches, steps))
    batches.close()  # type: ignore[attr-defined]
    return taken


def together(size: int, batch_size: int, world: int, steps: int, state: dict[str, Any] | None = None) -> list[Draw]:
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
    assert loader.state_dict() == {"seed": 5, "taken": 6, "order": "shuffle of 23 indices"}
    for _ in range(6):
        next(batches)
    assert (loader.epoch, loader.position) == (1, 1)
    batches.close()  # type: ignore[attr-defined]


def test_a_state_is_small_and_survives_json() -> None:
    windows = Windows([5, 0, 9] * 1000, 3)
    order = Mixture([windows, Shuffle(40), Mixture([Shuffle(3), windows], [1, 2])] * 30, [3, 2, 1] * 30)
    loader = Loader(order, 4, lambda index, rng: (index, rng.random()), list, 5, rank=0, world=1)
    take(loader, 3)
    text = json.dumps(loader.state_dict())
    assert len(text) < 400
    resumed = Loader(order, 4, lambda index, rng: (index, rng.random()), list, 5, rank=0, world=1)
    resumed.load_state_dict(json.loads(text))
    assert take(resumed, 2) == take(loader, 2)


@pytest.mark.parametrize(("size", "batch_size", "world", "epochs", "steps"), [
    (23, 3, 1, 1, 8), (24, 3, 1, 1, 8), (23, 3, 4, 2, 4), (23, 23, 1, 3, 3), (24, 2, 4, 3, 9),
])  # fmt: skip
def test_steps_are_decided_before_the_first(size: int, batch_size: int, world: int, epochs: int, steps: int) -> None:
    loaders = [make(size, batch_size, rank, world, epochs=epochs) for rank in range(world)]
    assert {len(loader) for loader in loaders} == {steps}
    ranks = [list(loader) for loader in loaders]
    assert {len(batches) for batches in ranks} == {steps} and {len(loader) for loader in loaders} == {0}
    assert all(list(loader) == [] for loader in loaders)
    indices = [index for step in range(steps) for batches in ranks for index, _ in batches[step]]
    assert sorted(indices[: epochs * size]) == sorted(list(range(size)) * epochs)


def test_a_state_is_taken_up_also_in_the_middle() -> None:
    loader, whole = make(), take(make(), 6)
    start = loader.state_dict()
    take(loader, 4)
    loader.load_state_dict(start)
    assert loader.state_dict() == start and take(loader, 6) == whole


def test_a_resumed_loader_has_the_steps_still_to_do() -> None:
    loader = make(epochs=2)
    assert len(loader) == 16
    take(loader, 5)
    assert len(loader) == 11
    other = make(batch_size=2, world=2, rank=1, epochs=2)  # 46 - 15 = 31 to go, 4 a step
    other.load_state_dict(loader.state_dict())
    assert len(other) == 8 == len(list(other))


def test_nothing_is_drawn_beyond_the_last_step() -> None:
    drawn: list[int] = []
    loader = Loader(10, 5, lambda index, rng: drawn.append(index), list, 5, rank=0, world=1, epochs=1, ahead=8)
    assert len(list(loader)) == 2 and len(drawn) == 10


def test_without_epochs_there_is_no_length() -> None:
    with pytest.raises(TypeError, match="has no end, so no length; give it epochs"):
        len(make())


def test_loaders_of_a_rank_take_turns() -> None:
    whole = take(make(epochs=3), 23)
    turns = [make(loader=loader, loaders=3, epochs=3) for loader in range(3)]
    assert [len(loader) for loader in turns] == [8, 8, 7]
    batches = [iter(loader) for loader in turns]
    states = []
    for step in range(23):
        assert next(batches[step % 3]) == whole[step]
        states.append(turns[step % 3].state_dict())
    assert [state["taken"] for state in states] == list(range(3, 70, 3))
    assert [next(iterator, None) for iterator in batches] == [None] * 3


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
def test_a_seat_gives_the_numbers_of_a_new_generator(seed: int) -> None:
    seat = Seat(seed)
    for epoch, index in [(0, 0), (3, 2**62), (2**40, 7), (0, 1), (0, 0)]:
        found, fresh = seat.at(epoch, index), generator(seed, epoch, index)
        for rng in (found, fresh):
            rng.random(3)  # leaves part of a block of four
        assert found.random() == fresh.random()
        found, fresh = seat.at(epoch, index), generator(seed, epoch, index)
        half = [rng.integers(2**32, dtype=np.uint32) for rng in (found, fresh)]  # leaves half a word
        assert half[0] == half[1] and found.bit_generator.state["has_uint32"] == 1
        found = seat.at(epoch, index + 1)
        fresh = generator(seed, epoch, index + 1)
        assert str(found.bit_generator.state) == str(fresh.bit_generator.state)
        assert np.array_equal(found.integers(9, size=5, dtype=np.uint32), fresh.integers(9, size=5, dtype=np.uint32))
        assert np.array_equal(found.standard_normal(50), fresh.standard_normal(50))


def test_too_few_indices() -> None:
    with pytest.raises(
        ShardError,
        match=r"7 indices are too few for one step of 4 ranks with batch_size 2 \(8\); lower batch_size to at most 1",
    ):
        make(size=7, batch_size=2, world=4)
    with pytest.raises(ShardError, match=r"3 indices are .* of 4 ranks .*; use at most 3 ranks, or add data"):
        make(size=3, batch_size=1, world=4)
    make(size=8, batch_size=2, world=4)
    with pytest.raises(ShardError, match=r"0 indices are too few for one step of 1 ranks .* \(2\); add data$"):
        make(size=0, batch_size=2)


def test_numpys_integers_are_as_good_as_pythons() -> None:
    """Also in the state, which goes to json."""
    numbers = {"batch_size": 2, "rank": 1, "world": 2, "loader": 0, "loaders": 2, "epochs": 3}

    def state_of(kind: Callable[[int], Any]) -> tuple[str, list[list[int]]]:
        given = {name: kind(number) for name, number in numbers.items()}
        order = Mixture([Shuffle(kind(20)), Shuffle(30)], np.array([1, 2]))
        loader = Loader(order, draw=lambda index, rng: index, collate=list, seed=kind(5), **given)
        batches = list(loader)
        state = json.dumps(loader.state_dict())
        loader.load_state_dict(json.loads(state))
        return state, batches

    assert state_of(np.int64) == state_of(np.int32) == state_of(int)
    for wrong in ({"batch_size": 2.0}, {"epochs": 1.5}):
        with pytest.raises(TypeError):
            make(**wrong)


@pytest.mark.parametrize(("setting", "message"), [
    ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
    ({"rank": 2, "world": 2}, "rank is 2; it must be in 0 … world - 1, and world is 2"),
    ({"rank": -1}, "rank is -1"),
    ({"loader": 1}, "loader is 1; it must be in 0 … loaders - 1, and loaders is 1"),
    ({"loaders": 0}, "loaders is 0"),
    ({"epochs": 0}, "epochs is 0"),
    ({"ahead": 0}, "ahead is 0"),
    ({"seed": -1}, "seed is -1; it must be in"),
])  # fmt: skip
def test_impossible_settings(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        make(**setting)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seed": 6}, "of seed 6 and order 'shuffle of 23 indices', this loader has seed 5 and order 'shuffle of 23"),
        (
            {"order": "shuffle of 24 indices"},
            "order 'shuffle of 24 indices', this loader has seed 5 and order 'shuffle",
        ),
        ({"taken": -1}, "must have seed, taken and order: start anew"),
        ({"taken": 2**70}, "must have seed, taken and order"),
        ({"taken": 2.5}, "must have seed, taken and order"),
        ({"order": None}, "must have seed, taken and order"),
    ],
)
def test_a_state_of_something_else(state: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        make().load_state_dict(make().state_dict() | state)


def test_a_state_of_other_windows_or_weights() -> None:
    def load(saved: Order, order: Order) -> None:
        loaders = [Loader(given, 1, lambda index, rng: index, list, 5, rank=0, world=1) for given in (saved, order)]
        loaders[1].load_state_dict(loaders[0].state_dict())

    load(Windows([5, 6], 1), Windows([5, 6], 1, fetch=print))
    with pytest.raises(ShardError, match=r"order 'windows of 1 of 2 shards, 11 .* and order 'windows of 2 of 2 shards"):
        load(Windows([5, 6], 1), Windows([5, 6], 2))
    with pytest.raises(ShardError, match=r"order 'mixture of 2 orders, 11 .* and order 'mixture of 2 orders, 11 "):
        load(Mixture([Shuffle(5), Shuffle(6)], [1, 1]), Mixture([Shuffle(5), Shuffle(6)], [1, 2]))
