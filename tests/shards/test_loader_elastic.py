"""Resuming under another topology: 200 random runs, each in several legs, against the order itself."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from shards import Loader, Mixture, Order, Shuffle, Windows
from tests.shards.made import generator

SEED = 11
RUNS = 50  # of each kind
Draw = tuple[int, int]  # the index, and a number that tells its epoch


@dataclass(frozen=True)
class Topology:
    batch_size: int
    world: int
    loaders: int

    @property
    def a_step(self) -> int:
        return self.batch_size * self.world


def draw(index: int, rng: np.random.Generator) -> Draw:
    return index, int(rng.integers(2**63))


def leg(order: Order, epochs: int, topology: Topology, state: Any, steps: int | None) -> tuple[list[Draw], Any]:
    """What `steps` steps of all ranks draw (None: all that are left), in the order of the global batches; the state."""
    ranks = []
    for rank in range(topology.world):
        place = {"rank": rank, "world": topology.world, "loaders": topology.loaders, "epochs": epochs}
        turns = [
            Loader(order, topology.batch_size, draw, list, SEED, loader=k, **place) for k in range(topology.loaders)
        ]
        for loader in turns:
            if state:
                loader.load_state_dict(state)
        ranks.append(turns)
    left = {sum(len(loader) for loader in turns) for turns in ranks}
    assert len(left) == 1  # decided before step 0, the same on every rank
    steps = left.pop() if steps is None else steps
    drawn = play(ranks, steps)
    states = [turns[(steps - 1) % topology.loaders].state_dict() for turns in ranks]
    assert all(state == states[0] for state in states)
    return drawn, states[0]


def play(ranks: list[list[Loader[Draw, list[Draw]]]], steps: int) -> list[Draw]:
    iterators = [[iter(loader) for loader in turns] for turns in ranks]
    batches = [next(turns[step % len(turns)]) for step in range(steps) for turns in iterators]
    for turns in iterators:
        for iterator in turns:
            iterator.close()  # type: ignore[attr-defined]
    return [drawn for batch in batches for drawn in batch]


def topologies(size: int, rng: np.random.Generator, count: int) -> Iterator[Topology]:
    """The global batch stays half of the time, divided otherwise among the ranks."""
    a_step = int(rng.integers(1, min(24, size) + 1))
    for _ in range(count):
        if rng.random() < 0.5:
            a_step = int(rng.integers(1, min(24, size) + 1))
        world = int(rng.choice([world for world in range(1, 7) if a_step % world == 0]))
        yield Topology(a_step // world, world, int(rng.integers(1, 4)))


def shuffle(rng: np.random.Generator) -> Shuffle:
    return Shuffle(int(rng.integers(5, 80)))


def windows(rng: np.random.Generator) -> Windows:
    counts = rng.integers(0, 15, int(rng.integers(2, 10))) * rng.integers(1, 4)
    return Windows([5, *counts.tolist()], int(rng.integers(1, 4)), lambda shards: None)


def mixture(rng: np.random.Generator) -> Mixture:
    orders: list[Order] = [shuffle(rng) for _ in range(int(rng.integers(1, 5)))]
    return Mixture(orders, rng.uniform(0.05, 1, len(orders)).tolist())


def mixture_of_windows(rng: np.random.Generator) -> Mixture:
    return Mixture([windows(rng), shuffle(rng), windows(rng)], rng.uniform(0.05, 1, 3).tolist())


KINDS: list[Callable[[np.random.Generator], Order]] = [shuffle, windows, mixture, mixture_of_windows]


def sources(order: Order) -> list[range]:
    if not isinstance(order, Mixture):
        return [range(order.size)]
    ends = [*order.offsets[1:], order.size]
    return [range(first, end) for first, end in zip(order.offsets, ends, strict=True)]


def whole_epochs(order: Order, drawn: list[Draw]) -> int:
    """How many epochs of its sources `drawn` has from end to end; each must hold every index of the source once."""
    found = 0
    for source in sources(order):
        own = [index for index, _ in drawn if index in source]
        for first in range(0, len(own) - len(source) + 1, len(source)):
            assert sorted(own[first : first + len(source)]) == list(source)
            found += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_of_topology_leaves_none_out_and_repeats_none(kind: Callable[[np.random.Generator], Order]) -> None:
    tally: Counter[str] = Counter()
    for run in range(RUNS):
        rng = np.random.default_rng([run, KINDS.index(kind)])
        order, epochs, state, drawn, before = kind(rng), int(rng.integers(1, 4)), None, list[Draw](), None
        for topology in topologies(order.size, rng, int(rng.integers(1, 4))):
            left = (epochs * order.size - len(drawn)) // topology.a_step
            if left < 2:
                break
            more, state = leg(order, epochs, topology, state, int(rng.integers(1, left)))
            drawn += more
            tally["same global batch"] += before is not None and before.a_step == topology.a_step
            tally["changes"] += 1
            before = topology
        more, state = leg(order, epochs, next(topologies(order.size, rng, 1)), state, None)
        drawn += more
        assert state["taken"] == len(drawn) >= epochs * order.size
        places = zip(*order.places(np.arange(len(drawn)), SEED), strict=True)
        assert drawn == [draw(int(i), generator(SEED, int(epoch), int(i))) for epoch, i in places]
        assert len(set(drawn)) == len(drawn)  # an index comes twice only in two epochs, with another number
        tally["whole epochs"] += whole_epochs(order, drawn)
    assert tally["changes"] >= RUNS and tally["same global batch"] >= 10 and tally["whole epochs"] >= RUNS
