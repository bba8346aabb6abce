"""One writer at a time: a lock on OUT that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TextIO

from prep.errors import PrepError

LOCK = ".lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Alone in writing the folder OUT, which is there; PrepError says who else is.

    The file stays, empty; the lock is the system's (flock), and dies with the process. What killed builds left half
    written is removed.
    """
    with (out / LOCK).open("a+") as file:
        _lock(file, out)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        try:
            _sweep(out)
            yield
        finally:
            file.truncate(0)


def _lock(file: TextIO, out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        who = file.read(200) or "process unknown"
        raise PrepError(f"{out} is being written ({who}). Wait until that has ended, or end it.") from None
    except OSError as error:
        # some network file systems; better a build without a lock than none
        print(f"{out}: no locks here ({error.strerror}). See that nothing else writes it.", file=sys.stderr)


def _sweep(out: Path) -> None:
    for part in chain(out.glob(".*.part"), out.glob("generations/*/.*.part")):
        part.unlink(missing_ok=True)
