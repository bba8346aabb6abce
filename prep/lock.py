"""One writer at a time: a lock on OUT that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from prep.errors import PrepError

LOCK = ".lock"
LOCK_PARTS = ".lock-parts"
LOCK_PART = ".lock-part-"


@contextmanager
def locked(out: Path, parts: bool = False) -> Iterator[None]:
    """Alone in writing the folder OUT, or with `parts` beside other parts of one build. PrepError says who else writes
    it, or that it is not there.

    The file stays, empty; the lock is the system's (flock), and dies with the process. What killed builds left half
    written is removed by who is alone.
    """
    if not out.is_dir():
        raise PrepError(f"{out} is not a folder. Give the --out of a `prep build`.")
    with (out / LOCK).open("ab+", buffering=0) as file:
        _take(file, fcntl.LOCK_SH if parts else fcntl.LOCK_EX, out, f"{out} is being written")
        _sign(file)
        try:
            if not parts:
                clear(out, *out.glob("generations/*"), *out.glob("audio/*"))
                for part in out.glob(f"{LOCK_PART}*"):
                    part.unlink()
            yield
        finally:
            file.truncate(0)


@contextmanager
def as_part(out: Path, number: int, of: int) -> Iterator[None]:
    """Of a build in parts one, which is not built twice at a time, nor beside parts of another number: these would
    write the same shards. PrepError says who does."""
    end = f"-of-{of}"
    with (out / f"{LOCK_PART}{number}{end}").open("ab+", buffering=0) as file:
        _take(file, fcntl.LOCK_EX, out, f"part {number}/{of} of {out} is being built already")
        _sign(file)
        for other in out.glob(f"{LOCK_PART}*"):
            if not other.name.endswith(end):
                with other.open("ab+", buffering=0) as theirs:
                    _take(theirs, fcntl.LOCK_SH, out, f"{out} is being built in another number of parts")
        yield


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """For the steps that parts of a build take one after another; waits."""
    with (out / LOCK_PARTS).open("ab") as file:
        _lock(file, fcntl.LOCK_EX, out)
        yield


def _take(file: BinaryIO, how: int, out: Path, told: str) -> None:
    """Does not wait: PrepError says who has the lock."""
    try:
        _lock(file, how | fcntl.LOCK_NB, out)
    except BlockingIOError:
        file.seek(0)
        who = file.read(200).decode(errors="replace") or "process unknown"
        raise PrepError(f"{told} ({who}). Wait until that has ended, or end it.") from None


def _sign(file: BinaryIO) -> None:
    """Not needed for the lock: on a full disk, what makes room has to run, too."""
    file.truncate(0)
    who = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
    with suppress(OSError):
        file.write(who.encode())


def _lock(file: BinaryIO, how: int, out: Path) -> None:
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
