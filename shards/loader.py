"""Batches for training, drawn in this process one thread ahead, in an order that is a pure function.

Each step takes the order's next batch_size * world positions, each rank its own run of them; an epoch's end may fall
within a batch. So every rank takes the same steps, an epoch visits each index once, and the state is one position,
whatever the world.
"""

import operator
import queue
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from shards.errors import ShardError
from shards.order import Order, Shuffle
from shards.pinning import pinner
from shards.ranks import rank_and_world

T = TypeVar("T")
B = TypeVar("B")
_PLACED = 4096  # places that are worked out at once: for one batch alone they would cost several times as much


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class Loader(Generic[T, B]):
    """Iterates over `collate([draw(index, rng), …])`, `batch_size` draws a batch on each rank.

    `order` is an Order, or a number of indices to be shuffled. `epochs` decides before step 0 how many steps there are,
    the same on every rank: `len(loader)`, the last of which reaches into the next epoch; without it there is no end.
    `rank` and `world` are torchrun's unless given. `loaders` that share a rank (worker processes) take turns: this one
    gives steps loader, loader + loaders, …, and the state of the one whose turn was last is the rank's.

    `rng` is keyed by (seed, epoch, index): a draw does not depend on the rank, the batch or what was drawn before. It
    is valid during its draw only. `draw`, `collate` and pinning (`pin`: None is where torch is imported and has CUDA)
    run in one thread, at most `ahead` + 1 batches before the caller; what they raise is raised to the caller. One
    iteration at a time; closing the iterator (or leaving the for loop) ends the thread. An iteration goes on where the
    last one stopped. Raises ShardError for settings that cannot work.
    """

    def __init__(
        self,
        order: int | Order,
        batch_size: int,
        draw: Callable[[int, np.random.Generator], T],
        collate: Callable[[list[T]], B],
        seed: int,
        *,
        rank: int | None = None,
        world: int | None = None,
        loader: int = 0,
        loaders: int = 1,
        ahead: int = 2,
        pin: bool | None = None,
        epochs: int | None = None,
    ) -> None:
        self.order = Shuffle(order) if isinstance(order, int | np.integer) else order
        # Plain ints: numpy's would come out in the state, which is for json
        self.rank, self.world = map(operator.index, rank_and_world(rank, world))
        self.batch_size, self.seed, self.loader, self.loaders = map(operator.index, (batch_size, seed, loader, loaders))
        self.epochs = None if epochs is None else operator.index(epochs)
        self._draw, self._collate, self._ahead, self._pin = draw, collate, ahead, pin
        self._global = self.batch_size * self.world  # positions a step
        self._check()
        self._loaded = 0  # positions taken before this loader's first batch, over all ranks and epochs
        self._given = 0  # this loader's batches since
        self._running = False

    @property
    def epoch(self) -> int:
        return self._taken // self.order.size

    @property
    def position(self) -> int:
        """How many of the epoch's indices have been handed out, over all ranks."""
        return self._taken % self.order.size

    def __len__(self) -> int:
        """The steps still to do, of this loader. Raises TypeError where there is no end."""
        if self.epochs is None:
            raise TypeError("this loader has no end, so no length; give it epochs")
        return max(0, -((self._next - self.epochs * self.order.size) // (self._global * self.loaders)))

    def state_dict(self) -> dict[str, int | str]:
        """What has been handed to the caller (not what was drawn ahead), for json; the same on every rank."""
        return {"seed": self.seed, "taken": self._taken, "order": self.order.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, also under another world, batch_size or loaders: with what was not yet visited.

        Raises ShardError for a state of another order or seed.
        """
        self._refuse_running()
        seed, taken, order = (state.get(key) for key in ("seed", "taken", "order"))
        if not (isinstance(seed, int) and isinstance(taken, int) and isinstance(order, str) and 0 <= taken < 1 << 62):
            raise ShardError(
                f"loader state is {state!r:.200}; it must have seed, taken and order: start anew without it"
            )
        if (seed, order) != (self.seed, self.order.identity()):
            raise ShardError(
                f"loader state is of seed {seed} and order {order!r:.200}, this loader has seed {self.seed} and order "
                f"{self.order.identity()!r}; use the same data, order and seed, or start anew"
            )
        self._loaded, self._given = taken, 0

    def __iter__(self) -> Iterator[B]:
        self._refuse_running()
        steps = islice(self._steps(self._next), None if self.epochs is None else len(self))
        batches: queue.SimpleQueue[B | _Failure] = queue.SimpleQueue()
        room, stop = threading.Semaphore(self._ahead), threading.Event()
        task = (steps, pinner(self._pin), batches, room, stop)
        thread = threading.Thread(target=self._produce, args=task, daemon=True, name="loader")
        self._running = True
        try:
            thread.start()
            while self.epochs is None or len(self):
                batch = batches.get()
                room.release()
                if isinstance(batch, _Failure):
                    raise batch.error
                self._given += 1
                yield batch
        finally:
            stop.set()
            room.release()
            self._running = False
            if thread.is_alive():  # Ctrl-C may have come before it began
                thread.join()

    @property
    def _next(self) -> int:
        """Where the step of this loader's next batch begins."""
        return self._loaded + (self.loader + self._given * self.loaders) * self._global

    @property
    def _taken(self) -> int:
        """Positions whose batches the caller has, over all ranks and epochs."""
        return self._next - (self.loaders - 1) * self._global if self._given else self._loaded

    def _check(self) -> None:
        numbers = {"batch_size": self.batch_size, "world": self.world, "loaders": self.loaders, "ahead": self._ahead}
        numbers |= {} if self.epochs is None else {"epochs": self.epochs}
        for name, number in numbers.items():
            if number < 1:
                raise ShardError(f"loader: {name} is {number}; it must be at least 1")
        turns = {"rank": (self.rank, "world", self.world), "loader": (self.loader, "loaders", self.loaders)}
        for name, (number, of, count) in turns.items():
            if not 0 <= number < count:
                raise ShardError(f"loader: {name} is {number}; it must be in 0 … {of} - 1, and {of} is {count}")
        if not 0 <= self.seed < 1 << 64:
            raise ShardError(f"loader: seed is {self.seed}; it must be in 0 … 2^64 - 1")
        if (size := self.order.size) < self._global:
            mend = f"use at most {size} ranks, or " if size else ""
            if size >= self.world:
                mend = f"lower batch_size to at most {size // self.world}, use fewer ranks, or "
            raise ShardError(
                f"{size} indices are too few for one step of {self.world} ranks with batch_size {self.batch_size} "
                f"({self._global}); {mend}add data"
            )

    def _refuse_running(self) -> None:
        if self._running:
            raise ShardError("the loader is being iterated; close that iterator (or leave its for loop) first")

    def _produce(
        self,
        steps: Iterator[tuple[list[int], list[int]]],
        pin: Callable[[B], B],
        batches: "queue.SimpleQueue[B | _Failure]",
        room: threading.Semaphore,
        stop: threading.Event,
    ) -> None:
        try:
            for epochs, indices in steps:
                batch = pin(self._collate(self._drawn(epochs, indices)))
                room.acquire()
                if stop.is_set():
                    return
                batches.put(batch)
        except BaseException as error:
            batches.put(_Failure(error))

    def _steps(self, first: int) -> Iterator[tuple[list[int], list[int]]]:
        """This loader's steps from position `first` on: the epochs and the indices of its rank's batch."""
        stride, own = self._global * self.loaders, self.rank * self.batch_size + np.arange(self.batch_size)
        # so many that an epoch or two are touched: each costs a permutation of its own
        at_once = max(1, min(_PLACED // self.batch_size, self.order.size // stride))
        while True:
            starts = range(first, first + at_once * stride, stride)
            positions = np.add.outer(np.array(starts, np.int64), own)
            places = self.order.places(positions.ravel(), self.seed)
            by_step = (found.reshape(positions.shape) for found in places)
            for start, epochs, indices in zip(starts, *by_step, strict=True):
                self.order.coming(start, start + self._global, self.seed)
                yield epochs.tolist(), indices.tolist()
            first += at_once * stride

    def _drawn(self, epochs: list[int], indices: list[int]) -> list[T]:
        seat, draws = Seat(self.seed), []
        for epoch, index in zip(epochs, indices, strict=True):
            try:
                draws.append(self._draw(index, seat.at(epoch, index)))
            except Exception as error:
                error.add_note(f"while drawing index {index} of epoch {epoch}, seed {self.seed}")
                raise
        return draws


class Seat:
    """Philox (Salmon et al. 2011) under key `seed`; (epoch, index) are the counter's upper words: 2^128 draws apart.

    One generator, set anew draw by draw: to make one would take thirty times as long.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)
        self._rng = np.random.Generator(self._bits)
        self._counter = [0, 0, 0, 0]
        # lists, for numpy takes an array apart one element at a time
        key: list[int] = self._bits.state["state"]["key"].tolist()
        self._state: Any = {**self._bits.state, "buffer": [0] * 4, "state": {"counter": self._counter, "key": key}}

    def at(self, epoch: int, index: int) -> np.random.Generator:
        self._counter[2:] = index, epoch
        self._bits.state = self._state  # also empties what is left over of the last draws: buffer and half a word
        return self._rng
