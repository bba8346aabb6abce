"""Batches for training, drawn in this process one thread ahead, in an order that is a pure function.

Position p of the endless sequence belongs to epoch p // size and holds index permute(p % size) of that epoch. Each step
takes the next batch_size * world positions, each rank its own run of them; an epoch's end may fall within a batch.
So every rank takes the same steps, an epoch visits each index once, and the state is one position, whatever the world.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from shards.errors import ShardError
from shards.order import permute

T = TypeVar("T")
B = TypeVar("B")
_POLL_S = 0.05


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class Loader(Generic[T, B]):
    """Iterates for ever over `collate([draw(index, rng), …])`, `batch_size` draws a batch on each rank.

    `rng` is keyed by (seed, epoch, index): a draw does not depend on the rank, the batch or what was drawn before.
    `draw` and `collate` run in one thread, at most `ahead` + 1 batches before the caller; what they raise is raised to
    the caller. One iteration at a time; closing the iterator (or leaving the for loop) ends the thread. An iteration
    goes on where the last one stopped. Raises ShardError for settings that cannot work.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        draw: Callable[[int, np.random.Generator], T],
        collate: Callable[[list[T]], B],
        seed: int,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
    ) -> None:
        if min(batch_size, world, ahead) < 1 or not 0 <= rank < world or not 0 <= seed < 1 << 64:
            raise ShardError(
                f"loader: batch_size {batch_size}, rank {rank}, world {world}, ahead {ahead}, seed {seed}; "
                "batch_size, world and ahead must be at least 1, rank in 0 … world - 1, seed in 0 … 2^64 - 1"
            )
        if size < batch_size * world:
            raise ShardError(
                f"{size} indices are too few for one step of {world} ranks with batch_size {batch_size} "
                f"({batch_size * world}); lower batch_size, use fewer ranks or add data"
            )
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self._draw, self._collate, self._ahead = draw, collate, ahead
        self._taken = 0  # positions whose batches the caller has, over all ranks and epochs
        self._running = False

    @property
    def epoch(self) -> int:
        return self._taken // self.size

    @property
    def position(self) -> int:
        """How many of the epoch's indices have been handed out, over all ranks."""
        return self._taken % self.size

    def state_dict(self) -> dict[str, int]:
        """What has been handed to the caller (not what was drawn ahead); the same on every rank."""
        return {"seed": self.seed, "size": self.size, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from `state`, also under another world or batch_size. Raises ShardError for other data or seed."""
        self._refuse_running()
        try:
            seed, size, epoch, position = (int(state[key]) for key in ("seed", "size", "epoch", "position"))
        except (KeyError, TypeError, ValueError):
            raise ShardError("loader state lacks seed, size, epoch or position; start anew without it") from None
        if (seed, size) != (self.seed, self.size):
            raise ShardError(
                f"loader state is of seed {seed} and {size} indices, this loader has seed {self.seed} and "
                f"{self.size}; use the same data and seed, or start anew"
            )
        if epoch < 0 or not 0 <= position < size:
            raise ShardError(f"loader state has epoch {epoch} and position {position}; start anew without it")
        self._taken = epoch * size + position

    def __iter__(self) -> Iterator[B]:
        self._refuse_running()
        batches: queue.Queue[B | _Failure] = queue.Queue(self._ahead)
        stop = threading.Event()
        thread = threading.Thread(target=self._produce, args=(self._taken, batches, stop), daemon=True, name="loader")
        self._running = True
        thread.start()
        try:
            while True:
                batch = batches.get()
                if isinstance(batch, _Failure):
                    raise batch.error
                self._taken += self.batch_size * self.world
                yield batch
        finally:
            stop.set()
            thread.join()
            self._running = False

    def _refuse_running(self) -> None:
        if self._running:
            raise ShardError("the loader is being iterated; close that iterator (or leave its for loop) first")

    def _produce(self, taken: int, batches: "queue.Queue[B | _Failure]", stop: threading.Event) -> None:
        while not stop.is_set():
            item: B | _Failure
            try:
                item = self._batch(taken)
            except BaseException as error:
                item = _Failure(error)
            _put(batches, item, stop)
            if isinstance(item, _Failure):
                return
            taken += self.batch_size * self.world

    def _batch(self, taken: int) -> B:
        first = taken + self.rank * self.batch_size
        return self._collate([self._draw_at(place) for place in range(first, first + self.batch_size)])

    def _draw_at(self, place: int) -> T:
        epoch = place // self.size
        index = permute(place % self.size, self.size, _epoch_key(self.seed, epoch))
        try:
            return self._draw(index, generator(self.seed, epoch, index))
        except Exception as error:
            error.add_note(f"while drawing index {index} of epoch {epoch}, seed {self.seed}")
            raise


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Philox (Salmon et al. 2011) under key `seed`; (epoch, index) are the counter's upper words: 2^128 draws apart."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, index, epoch]))


def _epoch_key(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest(), "little")


def _put(batches: "queue.Queue[B | _Failure]", item: "B | _Failure", stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return batches.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
