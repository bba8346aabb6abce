"""Files that hang whoever opens them, as on a network mount whose server is gone."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def hanging(path: Path) -> Iterator[threading.Event]:
    """Until the block ends; the event is set when somebody has begun to wait. Linux lets a file's owner lease it."""
    if not hasattr(fcntl, "F_SETLEASE"):
        pytest.skip("no leases on this system")
    opened = threading.Event()
    # the kernel asks for the lease back
    before = signal.signal(signal.SIGIO, lambda *_: opened.set())
    handle = os.open(path, os.O_RDWR)
    try:
        _lease(handle)
        yield opened
    finally:
        os.close(handle)
        signal.signal(signal.SIGIO, before)


def _lease(handle: int) -> None:
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        pytest.skip(f"no leases on this file system: {error}")
