"""Ctrl-C and SIGTERM, answered alike."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# a second signal that comes this soon means the first one, and must not disturb what is being put away for it
_AGAIN_S = 2.0


@contextmanager
def stoppable() -> Iterator[None]:
    """KeyboardInterrupt(signal's number) for either; a signal that is ignored already stays so (nohup)."""
    last = float("-inf")

    def stop(number: int, _frame: Any) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _AGAIN_S:
            raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    previous = {each: signal.signal(each, stop) for each in wanted}
    try:
        yield
    finally:
        # once stopped, the process is about to end, and is not to be disturbed in that either
        for each, handler in previous.items() if last < 0 else ():
            signal.signal(each, handler)
