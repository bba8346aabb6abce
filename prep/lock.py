"""One writer at a time: a lock on OUT that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from prep.errors import PrepError

LOCK = ".lock"
LOCK_PARTS = ".lock-parts"


@contextmanager
def locked(out: Path, parts: bool = False) -> Iterator[None]:
    """Alone in writing the folder OUT, or with `parts` beside other parts of one build. PrepError says who else writes
    it, or that it is not there.

    The file stays, empty; the lock is the system's (flock), and dies with the process. What killed builds left half
    written is removed by who is alone.
    """
    if not out.is_dir():
        raise PrepError(f"{out} is not a folder. Give the --out of a `prep build`.")
    with (out / LOCK).open("a+") as file:
        try:
            _lock(file, (fcntl.LOCK_SH if parts else fcntl.LOCK_EX) | fcntl.LOCK_NB, out)
        except BlockingIOError:
            file.seek(0)
            who = file.read(200) or "process unknown"
            raise PrepError(f"{out} is being written ({who}). Wait until that has ended, or end it.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        try:
            if not parts:
                clear(out, *out.glob("generations/*"), *out.glob("audio/*"))
            yield
        finally:
            file.truncate(0)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """For the steps that parts of a build take one after another; waits."""
    with (out / LOCK_PARTS).open("a") as file:
        _lock(file, fcntl.LOCK_EX, out)
        yield


def _lock(file: TextIO, how: int, out: Path) -> None:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        # some network file systems; better a build without a lock than none
        print(f"{out}: no locks here ({error.strerror}). See that nothing else writes it.", file=sys.stderr)


def clear(*folders: Path) -> None:
    """Removes what killed builds have left half written there; nobody may be building."""
    for part in (part for folder in folders for part in folder.glob(".*.part")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
