import signal
import threading

import numpy as np
import pytest

from shards import Loader, ShardError
from tests.shards.test_loader import Draw, make, take


def test_a_draw_that_raises_surfaces_in_the_consumer() -> None:
    order = [draw[0] for batch in take(make(), 7) for draw in batch]

    def draw(index: int, rng: np.random.Generator) -> int:
        if index == order[7]:
            raise OSError("the disk went away")
        return index

    loader = Loader(23, 3, draw, list, 5, rank=0, world=1)
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
        next(iter(Loader(23, 3, lambda index, rng: (index, 0.0), collate, 5, rank=0, world=1)))


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

    batches = iter(Loader(100, 1, draw, list, 5, rank=0, world=1, ahead=3))
    next(batches)
    assert third.wait(5)  # one handed out, three in the queue, one in hand
    batches.close()  # type: ignore[attr-defined]
    assert len(drawn) == 5


def test_leaving_the_for_loop_by_an_error_ends_the_thread() -> None:
    def train() -> None:
        for _ in make():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        train()
    del caught  # its traceback holds the frame, and that the iterator
    assert not _threads()


@pytest.mark.parametrize("waits_in", ["draw", "collate"])
def test_ctrl_c_loses_no_batch(waits_in: str) -> None:
    whole, pressed = take(make(), 4), list[str]()

    def press(where: str) -> None:
        if where == waits_in and batch_number == 2 and not pressed:
            pressed.append(where)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def draw(index: int, rng: np.random.Generator) -> Draw:
        press("draw")
        return index, rng.random()

    def collate(draws: list[Draw]) -> list[Draw]:
        press("collate")
        return draws

    loader = Loader(23, 3, draw, collate, 5, rank=0, world=1, ahead=1)
    batch_number, batches = 0, iter(loader)
    assert [next(batches), next(batches)] == whole[:2]
    batches.close()  # type: ignore[attr-defined]
    batch_number, batches = 2, iter(loader)
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    assert pressed and not _threads() and loader.position == 6
    assert take(loader, 2) == whole[2:]
