"""What is left where writing a shard does not come to its end: a full disk, a kill, a source that fails."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards import Example, ShardError, faults, finished, write_index, write_shard
from shards.generations import AGAIN
from tests.shards.made import HEADER, example

PAGE = 4096
WHOLE = ["train-000000.json", "train-000000.tar"]
WRITES = """
import os, signal, sys, time
from pathlib import Path
from shards import ShardError, write_shard
from tests.shards.made import example
path = Path(sys.argv[1])
def write():
    try:
        write_shard(path, [example(name, frames=900) for name in "ba"], {})
    except ShardError as error:
        print(error)
"""


def _names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def _run(code: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITES + code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env)


def test_a_failing_iterator_leaves_nothing(tmp_path: Path) -> None:
    def failing(error: Exception) -> Iterator[Example]:
        yield example("a")
        raise error

    # an OSError of the source is not taken for the disk's
    for error in (RuntimeError("the codec fell over"), FileNotFoundError("S00.flac fell over")):
        with pytest.raises(type(error), match="fell over"):
            write_shard(tmp_path / "train-000000.tar", failing(error), {})
        assert _names(tmp_path) == []


def test_a_failing_iterator_leaves_the_older_shard_whole(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    receipt = write_shard(path, [example("a")], {})
    with pytest.raises(ShardError):
        write_shard(path, [example("b"), example("b")], {})
    assert finished(path) == receipt and _names(tmp_path) == WHOLE


def test_a_crash_between_tar_and_receipt_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train-000000.tar"
    write_shard(path, [example("a")], {})
    old, rename = path.read_bytes(), os.replace

    def crash(source: Path, target: Path) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_shard(path, [example("b")], {})
    assert path.read_bytes() != old and finished(path) is None


@pytest.mark.parametrize("older", [False, True])
def test_a_file_that_may_not_grow(tmp_path: Path, older: bool) -> None:
    """EFBIG in the middle of a tar, which fails as a full disk does."""
    path = tmp_path / "train-000000.tar"
    receipt = write_shard(path, [example("old")], {}) if older else None
    told = _run("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); write()", path).stdout
    mend = f"finished shards stay: make room or mend the disk and {AGAIN}"
    assert told == f"{path} cannot be written (File too large); {mend}\n"
    assert _names(tmp_path) == (WHOLE if older else [])
    assert finished(path) == receipt


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Gives a real disk of so many pages, where this process may mount one; asked again, it changes its size."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounting a small disk takes root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def sized(pages: int) -> Path:
        nonlocal mounted
        options = f"size={pages * PAGE}" + (",remount" if mounted else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield sized
    if mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("older", [False, True])
def test_a_disk_that_is_full(disk: Callable[[int], Path], older: bool) -> None:
    """It fills up at every page in turn: within the tar, at its end, within the receipt."""
    path = disk(1000) / "train-000000.tar"
    old = write_shard(path, [example("old")], {}) if older else None
    used = sum(-(-item.stat().st_size // PAGE) for item in path.parent.iterdir())
    refused, written = 0, None
    while written is None:
        disk(used + refused + 1)
        try:
            written = write_shard(path, [example("a", frames=90), example("b", frames=90)], {})
        except ShardError as error:
            refused += 1
            assert str(error).startswith(f"{path} cannot be written (No space left on device); finished shards stay: ")
            assert _names(path.parent) == (WHOLE if older else [])
            assert finished(path) == old
    pages = -(-written.bytes // PAGE) - (-path.with_suffix(".json").stat().st_size // PAGE)
    assert refused == pages - 1 > 5
    assert _names(path.parent) == WHOLE and finished(path) == written


def test_a_killed_writer_leaves_what_the_next_build_removes(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    code = """
def killed():
    yield example("a", frames=900)
    os.kill(os.getpid(), signal.SIGKILL)
write_shard(path, killed(), {})
"""
    assert _run(code, path).returncode == -signal.SIGKILL
    left = _names(tmp_path)
    assert left and all(name.startswith(".train-000000.") and name.endswith(".part") for name in left)
    assert finished(path) is None
    write_shard(path, [example("a")], {})
    write_index(tmp_path, HEADER, {"train": [path.name]})
    assert _names(tmp_path) == ["dataset.json", *WHOLE]


def test_equal_content_is_equal_bytes_for_anyone_on_any_day(tmp_path: Path) -> None:
    """Another umask, hash seed, time zone, day and, where this process may take one, group."""
    another = """
os.umask(0o077)
if not os.geteuid():
    os.setegid(4712)
time.time = lambda: 2e9
write()
"""
    found, stats = [], []
    for name, code, zone in (("1", "write()", "UTC"), ("2", another, "Asia/Tokyo")):
        path = tmp_path / name / "train-000000.tar"
        path.parent.mkdir()
        assert _run(code, path, PYTHONHASHSEED=name, TZ=zone).returncode == 0
        found.append((path.read_bytes(), path.with_suffix(".json").read_bytes()))
        stats.append(path.stat())
    assert found[0] == found[1]
    assert stats[1].st_mode & 0o777 == 0o600 != stats[0].st_mode & 0o777


def test_two_writers_of_one_shard_leave_a_whole_one(tmp_path: Path) -> None:
    """Of one process or of two with one number, as on two machines: neither writes into the other's file."""
    path, both = tmp_path / "train-000000.tar", threading.Barrier(2)

    def write(number: int) -> None:
        def examples() -> Iterator[Example]:
            yield example("a", frames=300)
            both.wait(30)  # both have begun
            yield example("b", frames=300)

        write_shard(path, examples(), {})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert _names(tmp_path) == WHOLE and not list(faults(path))
