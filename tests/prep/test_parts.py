"""A build in parts, as the tasks of an array job make it: as separate processes, in any order."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from prep.build import Part
from prep.cli import main
from prep.errors import PrepError
from tests.prep.built import files
from tests.prep.made import write_corpus


def arguments(root: Path, out: Path, codec: str, *more: str) -> list[str]:
    asked = ["build", "--dataset", "slakh", "--root", str(root), "--out", str(out), "--workers", "1"]
    return [*asked, "--set", f"codec={codec}", "--set", "shards.size_mb=1", *more]


def test_three_processes_are_one_build(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=4), tmp_path / "out"
    commands = [[sys.executable, "-m", "prep.cli", *arguments(root, out, codec, "--part", f"{i}/3")] for i in (2, 1, 3)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    told = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    result = CliRunner().invoke(main, arguments(root, tmp_path / "whole", codec))
    assert result.exit_code == 0, result.output
    assert files(out) == files(tmp_path / "whole")
    assert shards.current(out) == shards.current(tmp_path / "whole")
    assert CliRunner().invoke(main, ["finish", str(out)]).output.strip().endswith(shards.current(out))


def test_a_part_that_is_missing(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    cli = CliRunner()
    first = cli.invoke(main, arguments(root, out, codec, "--part", "1/2"))
    assert (
        first.exit_code == 0 and "this part is done, 1 shards are not there yet (validation-000000.tar" in first.output
    )
    with pytest.raises(shards.ShardError):
        shards.open(out)
    early = cli.invoke(main, ["finish", str(out)])
    assert early.exit_code == 1 and "1 of 3 shards are not there (validation-000000.tar" in early.output
    last = cli.invoke(main, arguments(root, out, codec, "--part", "2/2"))
    assert last.exit_code == 0 and "built in" in last.output and len(shards.open(out)) == 3
    again = cli.invoke(main, arguments(root, out, codec, "--part", "2/2"))
    assert "complete already" in again.output


def test_every_shard_is_one_parts() -> None:
    names = [f"train-{number:06d}.tar" for number in range(10)]
    taken = [Part(number, 4).takes(names) for number in range(1, 5)]
    assert sorted(name for each in taken for name in each) == names
    for text in ("0/3", "4/3", "3", "1/0", "-1/3", "1/3x", "a/b"):
        with pytest.raises(PrepError, match="it must be I/N with I from 1 to N, such as 2/3"):
            Part.of_text(text)
