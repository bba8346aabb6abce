"""Ctrl-C and SIGTERM while a worker waits for a file that does not come."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from prep.config import PrepConfig
from prep.draft import survey
from tests.prep.built import corpus_at, files, run
from tests.prep.hang import hanging
from tests.prep.made import write_corpus

# far below what the build would wait for the file; a build ends within two seconds on a machine that is not busy
PATIENCE_S = 30


@contextmanager
def building(root: Path, out: Path, codec: str, workers: int) -> Iterator[subprocess.Popen[str]]:
    """`prep build` in a session of its own, as in a terminal."""
    words = ["--dataset", "slakh", "--root", str(root), "--out", str(out), "--workers", str(workers)]
    command = [sys.executable, "-m", "prep.cli", "build", *words, "--set", f"codec={codec}"]
    # a shell that runs the tests in the background has them ignore Ctrl-C, and their children with them
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def left(session: int) -> list[str]:
    """Processes of a session that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def ends_alone(session: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while left(session):
        assert time.monotonic() < deadline, left(session)
        time.sleep(0.05)


def interrupt(process: subprocess.Popen[str], signals: list[signal.Signals]) -> str:
    """Sent to the whole group, as a terminal does. What it printed to stderr."""
    for number in signals:
        os.killpg(process.pid, number)
        time.sleep(0.05)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signals[0]
    ends_alone(process.pid)
    assert "Traceback" not in told and "Exception" not in told, told
    return told


@pytest.mark.parametrize(
    ("workers", "signals"), [(1, [signal.SIGINT, signal.SIGINT]), (2, [signal.SIGINT]), (2, [signal.SIGTERM])]
)
def test_a_scan_is_left_at_once_and_goes_on(
    tmp_path: Path, codec: str, workers: int, signals: list[signal.Signals]
) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    with hanging(root / "validation/Track00003/stems/S03.flac") as opened, building(root, out, codec, workers) as build:
        assert opened.wait(PATIENCE_S)
        told = interrupt(build, signals)
    kept = pd.read_parquet(out / "scan.parquet")
    assert f"Stopped. {len(kept)} of 14 files are scanned. What is finished stays; the same command goes on" in told
    assert 10 >= len(kept) >= 10 - 2 * workers and not any(kept["reason"])
    run(root, out, codec)
    run(root, tmp_path / "whole", codec)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize(("workers", "signals"), [(1, [signal.SIGINT]), (2, [signal.SIGINT, signal.SIGTERM])])
def test_a_build_is_left_at_once_and_goes_on(
    tmp_path: Path, codec: str, workers: int, signals: list[signal.Signals]
) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    draft = survey(corpus_at(root), out, PrepConfig(codec=codec), 1, progress=False)
    first = draft.folder / "train-000000.json"
    with hanging(root / "test/Track00004/stems/S00.flac") as opened, building(root, out, codec, workers) as build:
        assert opened.wait(PATIENCE_S)
        while not first.is_file():
            assert build.poll() is None
            time.sleep(0.01)
        told = interrupt(build, signals)
    assert "of 3 missing shards are built" in told
    written = first.stat().st_mtime_ns
    assert not list(out.rglob("*.part"))
    run(root, out, codec)
    run(root, tmp_path / "whole", codec)
    assert files(out) == files(tmp_path / "whole") and first.stat().st_mtime_ns == written


def test_no_worker_outlives_a_killed_parent(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    with hanging(root / "train/Track00001/stems/S00.flac") as opened, building(root, out, codec, 2) as build:
        assert opened.wait(PATIENCE_S) and len(left(build.pid)) > 3
        build.kill()
        build.wait()
        ends_alone(build.pid)
