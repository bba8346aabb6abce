"""Files at an address, read in pieces through fsspec; whatever goes wrong is a ShardError in one line."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from copy import copy
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from fsspec.core import url_to_fs

from shards.errors import ShardError
from shards.generations import AGAIN

# Before each new try; a server that starts again takes half a minute
WAITS_S = (0.1, 0.5, 2.0, 5.0, 15.0)
_SILENCE_S = 30
# A connection that a forked process closes is closed for the process that made it, too: there they are kept for good
_alive: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id(), as fsspec calls those of one kind equal
_inherited: list[Any] = []
os.register_at_fork(after_in_child=lambda: _inherited.extend(_alive.values()))


class Missing(ShardError):
    """There is no such file."""


class Refused(ShardError):
    """Not for us; some stores say so of what is not there."""


class Address:
    """A folder of some fsspec file system; str() leaves out the password that an address may hold."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._told, self._folder = url.rstrip("/"), ""
        if parts.password:
            self._told = self._told.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)
        if _is_http(url) and (parts.query or parts.fragment or not parts.hostname):
            raise ShardError(f"{self} is not the address of a folder; give https://host/path, without ? and #")
        self._connection = _Connection(url.rstrip("/"), self._told)

    def __str__(self) -> str:
        return self._told + self._folder

    def below(self, folder: str) -> Address:
        found = copy(self)
        found._folder += f"/{folder}"
        return found

    def read(self, name: str, low: int, high: int, size: int, waits: Sequence[float]) -> tuple[int, bytes]:
        """(Where they begin, the bytes low … high - 1 of at most `size`): those, or all from a server without ranges.

        Tried again after each of `waits`. Raises ShardError: Missing, Refused, or another.
        """
        for wait in (*waits, None):
            try:
                found = self._bytes(name, low, high, size)
                break
            except ShardError:
                raise
            except Exception as error:  # of fsspec's many file systems
                fault, final = self._fault(name, error)
                if final or wait is None:
                    raise fault from None
                time.sleep(wait)
        start, data = found
        # Neither JSON nor a name nor a tar begins so
        if data.lstrip()[:1] == b"<" and (start == 0 or len(data) < high - low):
            raise ShardError(
                f"{self}/{name} is answered with a page, not with the file; "
                "see whether a login or a proxy stands between, or the address is a web page's"
            )
        return found

    def _bytes(self, name: str, low: int, high: int, size: int) -> tuple[int, bytes]:
        system, root = self._connection.made()
        with system.open(f"{root}{self._folder}/{name}", "rb", size=size, cache_type="none") as file:
            try:
                file.seek(low)
                return low, file.read(high - low)
            except ValueError:
                if not low:
                    raise
                file.seek(0)
                return 0, file.read(size)

    def _fault(self, name: str, error: Exception) -> tuple[ShardError, bool]:
        """(What is told of it, whether to try again is in vain)."""
        where, status = f"{self}/{name}", getattr(error, "status", None) or 0
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            return Missing(f"{where} is missing there; upload it again, or {AGAIN} and upload what it wrote"), True
        no_keys = type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
        if isinstance(error, PermissionError) or status in (401, 403, 407) or no_keys:
            return Refused(f"{where} may not be read ({_line(error)}); {self._keys()}"), True
        final = 400 <= status < 500 and status not in (408, 425, 429)
        mend = "see whether the address is right" if final else "see whether the address is right and the server is up"
        return ShardError(f"{where} cannot be read ({_line(error)}); {mend}"), final

    def _keys(self) -> str:
        if self._told.startswith("s3:"):
            return "give AWS's keys in its usual places (AWS_ACCESS_KEY_ID …), or FSSPEC_S3_ANON=1 where it is public"
        return "give a name and password in the address (https://name:password@host/…) or in ~/.netrc"


class _Connection:
    """fsspec's file system for an address, made when it is needed, and anew in a forked process."""

    def __init__(self, url: str, told: str) -> None:
        self._url, self._told = url, told
        self._system: tuple[int, Any, str] = (0, None, "")

    def __reduce__(self) -> tuple[Any, ...]:
        return _Connection, (self._url, self._told)

    def made(self) -> tuple[Any, str]:
        """(The file system, the address's path in it)."""
        process, system, root = self._system
        if process != os.getpid():
            system, root = self._make()
            _alive[id(system)] = system
            self._system = (os.getpid(), system, root)
        return system, root

    def _make(self) -> tuple[Any, str]:
        options = {"get_client": _session} if _is_http(self._url) else {}
        try:
            system, root = url_to_fs(self._url, skip_instance_cache=True, **options)
        except ImportError as error:
            raise ShardError(
                f"{self._told} needs a package that is not installed ({_line(error)}); pip install it"
            ) from None
        except ValueError as error:
            raise ShardError(
                f"{self._told} cannot be read ({_line(error)}); give a folder, https://… or s3://…"
            ) from None
        return system, root.rstrip("/")


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


async def _session(**options: Any) -> Any:
    """Heeds HTTPS_PROXY and ~/.netrc; gives up on a silent server, not on a long answer; wants it not compressed."""
    import aiohttp

    silence = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S)
    plain = {"Accept-Encoding": "identity"}
    return aiohttp.ClientSession(**{"trust_env": True, "timeout": silence, "headers": plain, **options})


def _line(error: Exception) -> str:
    """An error of another library in a few words."""
    status = getattr(error, "status", None)
    if status:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200].removesuffix(": ")
