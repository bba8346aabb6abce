import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prep.draft import check_out
from prep.errors import PrepError
from prep.lock import locked
from tests.prep.built import files, run
from tests.prep.made import write_corpus

HOLDER = """
import sys, time
from pathlib import Path
from prep.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_build_says_who_holds_it_and_a_kill_frees_it(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(PrepError, match=rf"out is being written \(process {holder.pid} on .*, since 20"):
            run(root, out, codec)
        assert os.listdir(out) == [".lock"]
        holder.kill()
    assert (out / ".lock").read_text()  # left as it was, and in nobody's way
    run(root, out, codec)
    assert (out / ".lock").read_text() == ""
    with locked(out):
        pass


def test_what_killed_builds_left_is_removed(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    whole = files(out)
    folder = next(out.glob("generations/*"))
    for left in (out / ".scan.parquet.1.part", folder / ".train-000000.tar.77.part", folder / ".ab_12.part"):
        left.write_bytes(b"half")
    assert check_out(out) == out
    run(root, out, codec)
    assert files(out) == whole and not list(out.rglob("*.part"))


def test_a_full_disk_keeps_nobody_from_making_room(tmp_path: Path) -> None:
    """Who holds the lock cannot be written down, and `prep generations --prune` has to run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"), (tmp_path / "file").open("wb", buffering=0) as file:
            file.write(b"no room")
        with locked(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_lock_is_put_into_a_folder_of_somebody_else(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(PrepError, match="holds files that are not a dataset's"):
        run(root, tmp_path, codec)
    assert not (tmp_path / ".lock").exists()


def test_an_out_whose_tables_could_not_be_read(tmp_path: Path) -> None:
    """pyarrow opens no file by a name that is not UTF-8."""
    out = tmp_path / os.fsdecode(b"d\xe9mos")
    with pytest.raises(PrepError, match=r"d\\udce9mos is not UTF-8, which tables cannot be read from"):
        check_out(out)
    assert not out.exists()


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path):
        pass
    assert "no locks here (Operation not supported)" in capsys.readouterr().err
