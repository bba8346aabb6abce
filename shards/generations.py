"""Files that change in one stroke, and the name of the live generation.

`OUT/current` holds the name of one folder in `OUT/generations/`, and below it those that were live before, the last one
first. Readers follow the first line; a build swaps the file when its generation is complete.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, cast

from shards.errors import ShardError

AGAIN = "run the same `prep build` again"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file (read and write) that takes `path`'s place when the block ends well; else it leaves nothing.

    The bytes are on disk before the name is: after a power cut `path` is the old file or the whole new one.
    """
    part = path.with_name(f".{path.name}.{token_hex(4)}.part")  # two machines may have processes of one number
    try:
        with part.open("w+b") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def set_current(out: Path, generation: str) -> None:
    """Makes `generation` the live one. Raises ShardError unless it is complete (its dataset.json is there)."""
    if not _NAME.fullmatch(generation):
        raise ShardError(f"generation name is {generation!r}; it may hold letters, digits and _ . - only")
    folder = out / "generations" / generation
    if not (folder / "dataset.json").is_file():
        raise ShardError(f"{folder} has no dataset.json, so it is not complete; {AGAIN}")
    before = history(out)
    if before[:1] != [generation]:
        _write_current(out, [generation, *(name for name in before if name != generation)])


def roll_back(out: Path) -> str:
    """Makes the generation live that was so before this one, of those that are still complete; its name.

    Raises ShardError where there is none."""
    complete = [name for name in history(out)[1:] if (out / "generations" / name / "dataset.json").is_file()]
    if not complete:
        raise ShardError(f"{out} has no generation that was live before {current(out)}, so nothing to go back to")
    _write_current(out, complete)
    return complete[0]


def history(out: Path) -> list[str]:
    """The live generation and those before it, the latest first; empty where there is none."""
    try:
        lines = (out / "current").read_text("utf-8", "replace").split()
    except OSError:
        return []
    return [line for line in lines if _NAME.fullmatch(line)]


def _write_current(out: Path, names: list[str]) -> None:
    with atomic(out / "current") as file:
        file.write("".join(f"{name}\n" for name in names).encode())


def current(out: Path) -> str:
    """The live generation's name. Raises ShardError where there is none or the file holds no name."""
    try:
        return live((out / "current").read_bytes(), str(out / "current"))
    except FileNotFoundError:
        raise ShardError(f"{out} has no live generation (no file `current`); {AGAIN}") from None
    except OSError as error:
        raise ShardError(f"{out / 'current'} cannot be read ({error.strerror}); mend that, or {AGAIN}") from None


def live(data: bytes, where: str) -> str:
    """The name that the file `current` holds. Raises ShardError."""
    name = data.split(b"\n", 1)[0][:300].decode("utf-8", "replace")
    if not _NAME.fullmatch(name):
        raise ShardError(f"{where} holds {name[:60]!r}, which names no generation; {AGAIN}")
    return name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
