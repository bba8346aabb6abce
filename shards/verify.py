"""Checks all of a dataset: `current`, each dataset.json, each receipt against it, each tar against its receipt.

Every byte is read and digested, in threads (hashlib lets others run), with 64 KiB of memory each beside the receipts.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shards.damage import Fault
from shards.errors import ShardError
from shards.generations import AGAIN, current
from shards.held import Seen, Task, check
from shards.index import listed_in, unseal
from shards.place import Folder
from shards.receipt import Receipt

_SHARD = re.compile(r"[a-z0-9_-]+-[0-9]{6}\.(tar|json)")


def faults(tar: Path) -> Iterator[Fault]:
    """All that is amiss with one shard, held to the receipt beside it. Reads all of the tar."""
    yield from check(Task(tar), lambda count: None)[0]


def verify(path: Path | str, workers: int | None = None, progress: Seen | None = None) -> Iterator[Fault]:
    """All that is amiss with a dataset: see `Verification`."""
    return Verification(path).faults(workers, progress)


@dataclass
class _Generation:
    """`name` is empty for the live one, and for one that is looked at alone."""

    folder: Path
    name: str
    index: dict[str, Any] | None = None
    tasks: list[Task] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Verification:
    """What is to be verified: `shards` in number, `bytes` of their tars; `notes` are remarks that are no faults.

    `path`: a dataset, of which every complete generation is looked at, the live one first, or the folder of one
    generation. Raises ShardError where there is no dataset.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._faults: list[Fault] = []
        self._generations = [self._listed(folder, name) for folder, name in self._folders()]
        tasks = [task for generation in self._generations for task in generation.tasks]
        self.shards = sum(not task.extra for task in tasks)
        self.bytes = sum(task.size for task in tasks)

    def faults(self, workers: int | None = None, progress: Seen | None = None) -> Iterator[Fault]:
        """Each fault as it is found, shard after shard. `progress` is told of bytes as they are read, from several
        threads, but from one at a time; in all they are `bytes`."""
        lock = threading.Lock()

        def seen(count: int) -> None:
            with lock:
                if progress:
                    progress(count)

        yield from self._faults
        workers = workers or os.cpu_count() or 1
        pool = ThreadPoolExecutor(workers)
        try:
            for generation in self._generations:
                found = _all(generation, pool, workers, seen)
                yield from (replace(fault, generation=generation.name) for fault in found)
        finally:
            pool.shutdown(cancel_futures=True)

    def _folders(self) -> list[tuple[Path, str]]:
        """The generations' folders, with the names by which to tell of them."""
        if not os.path.isdir(self.path):
            raise ShardError(
                f"{self.path} is not a folder; give the --out of a `prep build`, or one of its generations"
            )
        inside = self.path / "generations"
        if not os.path.isdir(inside) and not os.path.exists(self.path / "current"):
            if not any(file.name == "dataset.json" or _SHARD.fullmatch(file.name) for file in _files(self.path)):
                raise ShardError(f"{self.path} is not a dataset; give the --out of a `prep build`")
            return [(self.path, "")]
        live = self._live(inside)
        others = [folder for folder in _files(inside) if os.path.isdir(folder) and folder != live]
        complete = [folder for folder in others if os.path.exists(folder / "dataset.json")]
        self.notes += [
            f"generations/{folder.name} is not complete (no dataset.json): a build that did not end"
            for folder in others
            if folder not in complete
        ]
        return [*([(live, "")] if live else []), *((folder, folder.name) for folder in complete)]

    def _live(self, inside: Path) -> Path | None:
        """The live generation; where there is none, why."""
        try:
            live = inside / current(self.path)
        except ShardError as error:
            told = str(error).removeprefix(str(self.path / "current")).removeprefix(str(self.path)).strip()
            self._faults.append(Fault("current", told))
            return None
        if not os.path.isdir(live):
            self._faults.append(Fault("current", f"names {live.name}, which is not there; {AGAIN}"))
            return None
        return live

    def _listed(self, folder: Path, name: str) -> _Generation:
        """The generation's shards: those that dataset.json lists and, where it is damaged, those that lie there."""
        found = _Generation(folder, name)
        there = {file.name for file in _files(folder) if _SHARD.fullmatch(file.name)}
        receipts = {f"{file.removesuffix('.json')}.tar" for file in there if file.endswith(".json")}
        listed: dict[str, Task] = {}
        try:
            found.index = load_index(folder)
            if found.index["generation"] != folder.name and folder != self.path:
                raise ShardError(f"is that of generation {found.index['generation']}; {AGAIN}")
            listed = {item.name: Task(folder / item.name, item) for item in listed_in(found.index)}
        except ShardError as error:
            found.index = None
            told = str(error).removeprefix(f"{folder / 'dataset.json'} ")
            found.faults.append(Fault("dataset.json", told))
            receipts |= {file for file in there if file.endswith(".tar")}
        extra = [Task(folder / tar, extra=found.index is not None) for tar in sorted(receipts - listed.keys())]
        found.tasks = [*listed.values(), *extra]
        known = {"dataset.json", *(file for task in found.tasks for file in (task.name, task.receipt.name))}
        prefix = f"generations/{name}/" if name else ""
        self.notes += [
            f"{prefix}{file.name} {'was left by a killed run' if file.suffix == '.part' else 'is no file of a dataset'}"
            for file in _files(folder)
            if file.name not in known
        ]
        return found


def load_index(folder: Path) -> dict[str, Any]:
    """dataset.json, held to its own digest. Raises ShardError."""
    where = f"{folder / 'dataset.json'}"
    data = Folder(folder).read("dataset.json")
    if data is None:
        raise ShardError(f"{where} is missing; {AGAIN}")
    return unseal(data, where)


def _all(generation: _Generation, pool: ThreadPoolExecutor, workers: int, seen: Seen) -> Iterator[Fault]:
    """The faults of one generation: its own, its shards' in their order, and those between shards."""
    yield from generation.faults
    owners: dict[str, str] = {}
    for task, found, receipt in _ahead(generation.tasks, pool, 2 * workers, seen):
        yield from found
        for entry in receipt.examples if receipt else ():
            first = owners.setdefault(entry.id, task.name)
            if first != task.name:
                yield Fault(task.name, f"is in {first} as well", entry.id)


def _ahead(
    tasks: list[Task], pool: ThreadPoolExecutor, ahead: int, seen: Seen
) -> Iterator[tuple[Task, list[Fault], Receipt | None]]:
    """What came of each task, in order; `ahead` of them are under way while one is looked at."""
    waiting: deque[tuple[Task, Future[tuple[list[Fault], Receipt | None]]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(check, task, seen)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, *future.result()
    for task, future in waiting:
        yield task, *future.result()


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ShardError(f"{folder} cannot be read ({error.strerror})") from None
