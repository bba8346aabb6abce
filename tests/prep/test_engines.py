import os
from collections.abc import Iterator

import pytest
import torch

from prep.engines import local
from prep.errors import PrepError


def square(x: int) -> int:
    if x == 13:
        raise ValueError("unlucky")
    return x * x


def threads(_: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


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


def dies(x: int) -> int:
    if x == 3:
        os._exit(9)
    return x


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(PrepError, match=r"a worker was killed, most likely for memory. Run again with fewer --workers"):
        list(local(dies, range(6), 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_computes_with_one_thread(workers: int) -> None:
    before = torch.get_num_threads()
    found = list(local(threads, range(4), workers))
    assert {count for _, count in found} == {1} and torch.get_num_threads() == before
    assert (os.getpid() in {pid for pid, _ in found}) == (workers == 1)
