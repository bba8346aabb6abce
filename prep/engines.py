"""Where work runs: this machine's processes. The one place that knows; a cluster is another function like `local`."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from prep.errors import PrepError, Reject

Item = TypeVar("Item")
Result = TypeVar("Result")

# how many threads a library computes with decides how it sums; they look here when they are loaded
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# glibc's mallopt: arrays of up to 32 MB, the most it allows, are taken from memory that was freed before, of which up
# to 64 MB are kept, rather than from the system, page fault by page fault: two workers were 1.5 times one, now 1.9.
_MALLOC = ((-3, 32 << 20), (-1, 64 << 20))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
_TICK_S = 1.0
_starting = threading.Lock()
_parent: Connection | None = None  # set in a worker


class Lost(PrepError):
    """A worker went down with its item, through a fault of the item's; `reject` says which."""

    def __init__(self, what: str, reject: Reject) -> None:
        super().__init__(f"{what}: {reject.detail}")
        self.reject = reject


def local(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    lost: Callable[[Item, Lost], Result] | None = None,
) -> Iterator[Result]:
    """`function` of every item, in order, at most two items a worker ahead of the one asked for.

    Each worker is a process of one thread, so that numbers do not depend on how many there are, a fault ends nobody
    else, and what hangs can be ended. `lost` is the result for an item that took its worker down; without it, `Lost` is
    raised. Close the iterator (`contextlib.closing`) where it may be left early: that ends the work in flight.
    """
    crew = [_Worker(function) for _ in range(min(workers, len(items)))]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    threads = ThreadPoolExecutor(max(1, len(crew)), "engine")

    def work(item: Item) -> Result:
        worker = idle.get()
        try:
            return worker.call(item)
        except Lost as error:
            if lost is None:
                raise
            return lost(item, error)
        finally:
            idle.put(worker)

    ahead: deque[Future[Result]] = deque()
    try:
        for worker in crew:
            worker.start()
            idle.put(worker)
        for item in items:
            ahead.append(threads.submit(work, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in crew:
            worker.end()
        threads.shutdown()


@contextmanager
def within(limit_s: float, what: str, setting: str) -> Iterator[None]:
    """In a worker, a block that takes longer is given up together with the worker; in other processes, nothing.

    `setting` is the one that holds the limit. Not to be nested.
    """
    if _parent:
        _parent.send(("began", (limit_s, what, setting)))
    try:
        yield
    finally:
        if _parent:
            _parent.send(("ended", None))


class _Worker:
    """A process, and this side of the pipe to it. One thread at a time calls."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._process: Any = None
        self._ended = False

    def start(self) -> None:
        """A new process, unless the work has been ended."""
        with _starting:
            if self._ended:
                return
            self._pipe, theirs = multiprocessing.Pipe()
            self._process = _context().Process(target=_serve, args=(self._function, theirs), daemon=True)
            self._process.start()
            theirs.close()

    def end(self) -> None:
        with _starting:
            self._ended = True
            self._kill()

    def call(self, item: Any) -> Any:
        """Raises what the function raises, `Lost`, or PrepError where the process was killed."""
        self._block: tuple[float, str, str] | None = None
        try:
            self._pipe.send(item)
            while True:
                kind, value = self._next_message()
                if kind == "result":
                    return value
                if kind == "error":
                    error, text = value
                    raise error from _Remote(text)
                self._block = value
        except (EOFError, ConnectionError):
            raise self._buried() from None

    def _next_message(self) -> Any:
        """Raises Lost at the end of the block's time. It is counted in ticks: of a machine that slept, one is lost."""
        left_s = self._block[0] if self._block else float("inf")
        while not self._pipe.poll(max(0.0, min(left_s, _TICK_S))):
            left_s -= _TICK_S
            if left_s <= 0 and self._block:
                limit_s, what, setting = self._block
                self._restart()
                detail = f"not read within {limit_s:g} s; allow more: --set {setting}=SECONDS"
                raise Lost(what, Reject("gave_up", detail))
        return self._pipe.recv()

    def _buried(self) -> PrepError:
        """Why the process is gone."""
        with _starting:
            if self._ended:
                return PrepError("ended")  # and nobody listens
            self._process.join(_TICK_S)
            code = self._process.exitcode
        if self._block and code in (-signal.SIGSEGV, -signal.SIGFPE):
            self._restart()
            name = signal.Signals(-code).name
            return Lost(self._block[1], Reject("crashed", f"the decoder ended with {name}"))
        if code == -signal.SIGKILL:
            return PrepError("a worker was killed, most likely for memory. Run again with fewer --workers.")
        return PrepError(f"a worker ended by itself (exit code {code}). Run again; what is finished stays.")

    def _restart(self) -> None:
        with _starting:
            self._kill()
        self._pipe.close()
        self.start()

    def _kill(self) -> None:
        """Not waited for: where a disk does not answer, not even this ends a process at once."""
        if self._process and self._process.is_alive():
            self._process.kill()


class _Remote(Exception):
    """The traceback in the worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _context() -> Any:
    """A server that imports once what workers need; its forks start at once. A plain fork would copy threads.

    What it inherits when it starts holds for every worker: one thread, and Ctrl-C is the parent's to answer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prep.draft"])
    resource_tracker.ensure_running()  # or the server starts it, which unblocks the signal
    kept = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """A worker's life: item in, result out, until the parent ends it or ends."""
    global _parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # another library than glibc
        for option, value in _MALLOC:
            ctypes.CDLL(None).mallopt(option, value)
    _parent = pipe
    with suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            answer: tuple[str, Any]
            try:
                answer = "result", _noted(function, item)
            except Exception as error:
                answer = "error", (_sendable(error), traceback.format_exc())
            pipe.send(answer)


def _end_with_parent() -> None:
    """Also where the parent was killed, and in the middle of an item."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _noted(function: Callable[[Item], Result], item: Item) -> Result:
    """What is not expected propagates, with a note of which item it was."""
    try:
        return function(item)
    except Exception as error:
        error.add_note(f"while working on {getattr(item, 'id', None) or getattr(item, 'source', item)}")
        raise
