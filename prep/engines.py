"""Where work runs: this machine's processes. The one place that knows; a cluster is another function like `local`."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from prep.errors import PrepError

Item = TypeVar("Item")
Result = TypeVar("Result")


def local(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`function` of every item, in order, at most two items a worker ahead of the one asked for.

    One worker is this process itself. Numbers do not depend on the workers: every one computes with one thread.
    """
    if workers <= 1 or len(items) <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for item in items:
                yield _noted(function, item)
        finally:
            torch.set_num_threads(threads)
        return
    # the server imports torch once, and its forks start at once; a plain fork would copy other libraries' threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with ProcessPoolExecutor(min(workers, len(items)), context, initializer=_start_worker) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(_noted, function, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            raise PrepError("a worker was killed, most likely for memory. Run again with fewer --workers.") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """One thread, and Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _noted(function: Callable[[Item], Result], item: Item) -> Result:
    """What is not expected propagates, with a note of which item it was."""
    try:
        return function(item)
    except Exception as error:
        error.add_note(f"while working on {getattr(item, 'id', None) or getattr(item, 'source', item)}")
        raise
