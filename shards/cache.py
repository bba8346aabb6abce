"""A folder of files that can be had again: kept to a size, shared by the processes of a machine.

A name stands for its content, so nothing here grows stale. `<name>.part` is a file on its way; who brings it holds a
lock on it, which the system takes back when a process dies, and the next one goes on with what is there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from shards.errors import ShardError
from shards.shard import release_evicted

# fill(file, fresh): puts what is missing into a file of its whole size; `fresh` where it holds nothing yet
Fill = Callable[[BinaryIO, bool], None]
_FULL = (errno.ENOSPC, errno.EDQUOT)
_POLL_S = 0.02
_MOST_WAIT_S = 600.0


class Cache:
    """At most `limit` bytes. Of small files it counts those that were there when room was last made."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        with self._told():
            self._make()

    def small(self, name: str, sha256: str) -> bytes | None:
        """A file's bytes, or None unless it is there and whole."""
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def keep(self, name: str, data: bytes) -> None:
        """Holds a small file, if it can."""
        part = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}.part"
        with suppress(OSError):
            part.write_bytes(data)
            os.replace(part, self.folder / name)

    def holds(self, name: str, inode: int) -> bool:
        try:
            return (self.folder / name).stat().st_ino == inode
        except OSError:
            return False

    def there(self) -> int:
        """How many bytes of files the disk has room for, with those that are there."""
        with self._told():
            return self._free() + sum(size for _, _, size, _ in self._files())

    def use(self, name: str) -> bool:
        """Makes the file the one that was opened last; False where it is not here."""
        now = time.time_ns()
        try:
            os.utime(self.folder / name, ns=(now, now))
        except PermissionError:  # another user's
            return True
        except OSError:
            return False
        return True

    def open(self, name: str, size: int, fill: Fill, wait: bool = True) -> BinaryIO | None:
        """The file `name`, first brought here by `fill` where it is not; it can be read even when it is dropped.

        Without `wait`, None where another is bringing it, or where what others are bringing leaves no room.
        Raises ShardError where the disk cannot hold it, and what `fill` raises.
        """
        part = self.folder / f"{name}.part"
        with self._told(size):
            self._make()  # again, where somebody has cleared it away
            while True:
                if found := self._found(name, size):
                    return found
                file = self._locked(part, wait)
                if file:
                    with _unlocked(file):
                        if not (self.folder / name).exists():
                            return self._brought(file, part, size, fill, wait)
                        part.unlink(missing_ok=True)  # made anew, just after another had brought it
                        file.close()
                elif not wait:
                    return None

    def mend(self, name: str, fill: Fill) -> None:
        """Lets `fill` put right what is wrong in a file, if it is here."""
        with self._told(), suppress(FileNotFoundError), (self.folder / name).open("r+b", buffering=0) as opened:
            file = cast(BinaryIO, opened)
            fcntl.flock(file, fcntl.LOCK_EX)
            with _unlocked(file):
                fill(file, False)

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _found(self, name: str, size: int) -> BinaryIO | None:
        try:
            file = (self.folder / name).open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != size:  # no doing of ours
            file.close()
            (self.folder / name).unlink(missing_ok=True)
            return None
        self.use(name)
        return cast(BinaryIO, file)

    def _brought(self, file: BinaryIO, part: Path, size: int, fill: Fill, wait: bool) -> BinaryIO | None:
        fresh = os.fstat(file.fileno()).st_size != size
        if fresh:
            file.truncate(0)
            try:
                room = self._room(file, size, wait)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            if not room:
                part.unlink(missing_ok=True)
                file.close()
                return None
        fill(file, fresh)
        now = time.time_ns()
        os.utime(file.fileno(), ns=(now, now))
        os.replace(part, part.with_suffix(""))
        return file

    def _room(self, file: BinaryIO, size: int, wait: bool) -> bool:
        """Takes `size` bytes on disk, so that others see them taken, and a full disk shows before the work is done."""
        until = time.monotonic() + _MOST_WAIT_S
        while True:
            with _exclusive(self.folder / ".lock"):
                fits, dropped = self._evict(size)
                release_evicted()
                try:
                    if fits:
                        os.posix_fallocate(file.fileno(), 0, size)
                        return True
                except OSError as error:
                    # What was dropped may still be mapped, and so take its room
                    if error.errno not in _FULL or not dropped:
                        raise
            if not wait:
                return False
            if time.monotonic() > until:
                break
            time.sleep(_POLL_S)  # what others are bringing takes all the room; it can go when they have it
        raise ShardError(
            f"{self.folder}: what other processes are bringing took all of its {self.limit / 1e9:g} GB for "
            f"{_MOST_WAIT_S:.0f} s; give more cache_gb, or each process a cache of its own"
        )

    def _evict(self, needed: int) -> tuple[bool, bool]:
        """Drops files until `needed` bytes fit: first what dead processes left, then what was opened longest ago.

        (Whether they fit the limit, whether something was dropped).
        """
        files = self._files()
        total = sum(size for _, _, size, _ in files)
        excess = max(total + needed - self.limit, needed - self._free())
        dropped = 0
        for whole, _, size, path in sorted(files):
            if dropped >= excess:
                break
            if path.suffix in (".tar", ".json", ".part") and _dropped(path, whole):
                dropped += size
        return total + needed - dropped <= self.limit, dropped > 0

    def _files(self) -> list[tuple[bool, int, int, Path]]:
        """(Whether it is whole, when it was opened last, its size, it) of each file."""
        files = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                found = entry.stat()
                files.append((not entry.name.endswith(".part"), found.st_mtime_ns, found.st_size, Path(entry.path)))
        return files

    def _free(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    @staticmethod
    def _locked(path: Path, wait: bool) -> BinaryIO | None:
        """The file, made where it is missing, held by this process and thread alone; None where another has it, or has
        just renamed or dropped it."""
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return cast(BinaryIO, file)
        except (BlockingIOError, FileNotFoundError):
            pass
        file.close()
        return None

    @contextmanager
    def _told(self, size: int = 0) -> Iterator[None]:
        """OSErrors of the folder's disk, as ShardErrors."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                told = f"has no room for a shard of {size / 1e6:.3g} MB ({self._free() / 1e6:.3g} are free)"
                mend = "free some, or put the cache on another disk: cache=… or $GREENROOM_CACHE"
            else:
                told = f"cannot be used as a cache ({error.strerror or error})"
                mend = "give another folder: cache=… or $GREENROOM_CACHE"
            raise ShardError(f"{self.folder} {told}; {mend}") from None


@contextmanager
def _unlocked(file: BinaryIO) -> Iterator[None]:
    """At the end the lock is given back, and in case of an error the file closed.

    Closing alone would not do: a process that was forked meanwhile has the file, and with it the lock, too.
    """
    try:
        yield
    except BaseException:
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()
        raise
    if not file.closed:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _dropped(path: Path, whole: bool) -> bool:
    """Drops a file, but no part that somebody is bringing."""
    try:
        with path.open("rb") as file:
            if not whole:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True
