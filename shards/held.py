"""One shard held to its receipt, and its receipt to what dataset.json says of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shards.damage import Fault, tar_faults
from shards.errors import ShardError
from shards.place import Listed
from shards.receipt import BLOCK_BYTES, Receipt, dump_json, load_receipt

Seen = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """A shard to check. `listed`: None where dataset.json cannot tell, so that its receipt alone speaks for it.
    `extra`: dataset.json does not list it, as it does not list what no example fell into."""

    tar: Path
    listed: Listed | None = None
    extra: bool = False

    @property
    def name(self) -> str:
        return self.tar.name

    @property
    def receipt(self) -> Path:
        return self.tar.with_suffix(".json")

    @property
    def size(self) -> int:
        """Bytes to read; 0 where that cannot be known."""
        try:
            return self.listed.bytes if self.listed else self.tar.stat().st_size
        except OSError:
            return 0


def check(task: Task, seen: Seen) -> tuple[list[Fault], Receipt | None]:
    """What is amiss with a shard, and its receipt where that is sound. `seen` is told of bytes as they are read."""
    listed = task.listed
    try:
        receipt, digest = load_receipt(task.tar)
    except ShardError as error:
        told = str(error).removeprefix(str(task.receipt)).partition(";")[0].strip()
        return _without_receipt(task, told if os.path.exists(task.receipt) else "is missing", seen), None
    if listed and digest != listed.receipt_sha256:
        return _without_receipt(task, "is not the one that dataset.json lists", seen), None
    if listed and (receipt.bytes, receipt.sha256, len(receipt.examples)) != (
        listed.bytes,
        listed.sha256,
        listed.examples,
    ):
        return [Fault("dataset.json", f"lists {task.name} with other bytes, sha256 or examples than its receipt")], None
    return _told(task, receipt, digest) + (tar_faults(task.tar, receipt, seen) if receipt.examples else []), receipt


def _told(task: Task, receipt: Receipt, digest: str) -> list[Fault]:
    """What a receipt that can be read says amiss."""
    faults = []
    if not task.listed and digest != _digest_of(receipt):
        faults.append("its receipt is damaged")
    if task.extra and (receipt.examples or receipt.bytes):
        faults.append("has a receipt with examples, which dataset.json does not list")
    return [Fault(task.name, what) for what in faults]


def _digest_of(receipt: Receipt) -> str:
    """Of the file, as it is written; "" where it could not have been."""
    try:
        return hashlib.sha256(dump_json(receipt.to_json())).hexdigest()
    except (ValueError, TypeError):
        return ""


def _without_receipt(task: Task, amiss: str, seen: Seen) -> list[Fault]:
    """The tar held to dataset.json's digest, where there is one: nothing tells what lies where in it."""
    name, found = task.name, [Fault(task.name, f"its receipt {amiss}")]
    if not task.listed:
        return found
    whole = hashlib.sha256()
    try:
        with task.tar.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                whole.update(block)
                seen(len(block))
    except FileNotFoundError:
        return [*found, Fault(name, "the tar is missing")]
    except OSError as error:
        return [*found, Fault(name, f"the tar cannot be read ({error.strerror})")]
    if whole.hexdigest() != task.listed.sha256:
        found.append(Fault(name, "the tar does not have the sha256 that dataset.json lists"))
    return found
