import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from prep.engines import Lost, local, within
from prep.errors import PrepError


def square(x: int) -> int:
    if x == 13:
        raise ValueError("unlucky")
    return x * x


def threads(_: int) -> tuple[int, int, str, int]:
    np.ones((300, 300)) @ np.ones((300, 300))
    running = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 0
    return os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], running


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(local(square, range(12), workers)) == [x * x for x in range(12)]
    assert list(local(square, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_item_and_what_came_before_is_there(workers: int) -> None:
    results: Iterator[int] = local(square, range(10, 16), workers)
    assert [next(results) for _ in range(3)] == [100, 121, 144]
    with pytest.raises(ValueError, match="unlucky") as caught:
        next(results)
    assert caught.value.__notes__ == ["while working on 13"]
    assert "in square" in str(caught.value.__cause__)  # where in the worker


class Awkward(Exception):
    """Can be pickled, and not read back."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def awkward(_: int) -> int:
    raise Awkward(1, 2)


def test_an_error_that_cannot_travel_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="Awkward: 1 and 2"):
        list(local(awkward, range(2), 1))


def dies(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leaves(x: int) -> int:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_told(workers: int) -> None:
    with pytest.raises(PrepError, match=r"a worker was killed, most likely for memory. Run again with fewer --workers"):
        list(local(dies, range(6), workers))
    with pytest.raises(PrepError, match=r"ended by itself \(exit code 9\)"):
        list(local(leaves, range(6), workers))


def test_every_worker_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    found = list(local(threads, range(4), 2))
    assert {(count, said) for _, count, said, _ in found} == {(1, "1")} and torch.get_num_threads() == before
    assert os.getpid() not in {pid for pid, *_ in found}
    # none but the main one, the one that watches the parent, and one that torch starts when it is imported
    assert max(running for *_, running in found) <= 3


def hangs(x: int) -> int:
    with within(0.2 if x == 2 else 60.0, f"item {x}", "limits.patience"):
        if x == 2:
            time.sleep(600)
        if x == 4:
            os.kill(os.getpid(), signal.SIGSEGV)
    return x


def rescued(x: int, lost: Lost) -> int:
    return {"gave_up": -1, "crashed": -2}[lost.reject.reason]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_hangs_or_crashes_is_given_up_and_the_rest_goes_on(workers: int) -> None:
    assert list(local(hangs, range(8), workers, rescued)) == [0, 1, -1, 3, -2, 5, 6, 7]


def test_without_a_rescue_the_item_and_the_setting_are_named() -> None:
    told = r"^item 2: not read within 0.2 s; allow more: --set limits.patience=SECONDS$"
    with pytest.raises(Lost, match=told):
        list(local(hangs, range(4), 2))
    with pytest.raises(Lost, match=r"^item 4: the decoder ended with SIGSEGV$"):
        list(local(hangs, [4], 2))


def waits(folder: Path) -> None:
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def test_leaving_early_ends_the_work_in_flight(tmp_path: Path) -> None:
    items = [None, *3 * [tmp_path]]
    with closing(local(first_quick, items, 2)) as results:
        next(results)
        while len(pids := [int(path.stem) for path in tmp_path.glob("*.pid")]) < 2:
            time.sleep(0.01)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def first_quick(folder: Path | None) -> None:
    if folder:
        waits(folder)
