"""Equal bytes whatever the threads and workers, and a word where a build goes on under another fingerprint."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prep.config import Mixing
from prep.fingerprint import fingerprint
from tests.prep.built import files, run
from tests.prep.made import save_small_codec, write_corpus


@pytest.mark.parametrize(("threads", "workers"), [("1", 3), ("2", 2)])
def test_threads_and_workers_change_no_byte(tmp_path: Path, codec: str, threads: str, workers: int) -> None:
    root = write_corpus(tmp_path / "corpus")
    run(root, tmp_path / "one", codec)
    words = ["--root", str(root), "--out", str(tmp_path / "two"), "--set", f"codec={codec}", "--workers", str(workers)]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    subprocess.run(
        [sys.executable, "-m", "prep.cli", "build", "--dataset", "slakh", *words],
        env=os.environ | dict.fromkeys(names, threads),
        check=True,
        capture_output=True,
    )
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}
    for name in ("plan.parquet", "ledger.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Builds that come first, here, were another torch's."""
    monkeypatch.setattr("prep.build.fingerprint", lambda: fingerprint() | {"torch": "2.10.0"})
    yield
    monkeypatch.undo()


def told(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if "elsewhere" in line]


def test_going_on_under_another_fingerprint_is_told(
    tmp_path: Path, codec: str, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec)
    monkeypatch.undo()
    folder = next(out.glob("generations/*"))
    for name in ("test-000000.json", "test-000000.tar"):
        (folder / name).unlink()
    line = f"2 shards taken over were written elsewhere: torch was 2.10.0, is {fingerprint()['torch']}"
    assert told(run(root, out, codec).lines()) == [line]
    assert told(run(root, out, codec).lines()) == []  # nothing was built


def test_streams_copied_from_another_fingerprint_are_told(
    tmp_path: Path, codec: str, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec, mixing=Mixing(subsets_per_target=1))
    monkeypatch.undo()
    report = run(root, out, codec, mixing=Mixing(subsets_per_target=3))
    assert report.work and report.work.copied and len(told(report.lines())) == 1
    assert told(report.lines())[0].startswith("3 shards taken over")
    assert told(run(root, out, save_small_codec(tmp_path, 1)).lines()) == []
