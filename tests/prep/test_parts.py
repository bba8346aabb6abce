"""A build in parts, as the tasks of an array job make it: as separate processes, in any order."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from prep import draft
from prep.build import Part, build_part
from prep.cli import main
from prep.config import Loudness, PrepConfig
from prep.errors import PrepError
from prep.job import Built, Bundle
from prep.report import Report
from tests.prep.built import corpus_at, files, run, work_here
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


def asked(root: Path, out: Path, codec: str, part: Part, **settings: Any) -> Callable[[], Report]:
    config = PrepConfig(codec=codec, **settings)
    return lambda: build_part(corpus_at(root), out, config, 1, part, progress=False)


def begun_while(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any]) -> None:
    """`other` is called while the next part builds its second example."""
    work_here(monkeypatch)
    made, seen = draft.build_examples, list[str]()

    def build_examples(bundle: Bundle, **others: Any) -> list[Built]:
        seen.append(bundle.id)
        if len(seen) == 2:
            other()
        return made(bundle, **others)

    monkeypatch.setattr(draft, "build_examples", build_examples)


@pytest.mark.parametrize("second", [Part(1, 1), Part(2, 2)])
def test_a_part_is_not_built_twice_at_once(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch, second: Part
) -> None:
    """As a queue does that has lost sight of a node: what ends first would clear away what the other writes."""
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    refused = []

    def again() -> None:
        with pytest.raises(PrepError, match=r"is being built (already|in another number of parts) \(process ") as told:
            asked(root, out, codec, second)()
        refused.append(told)

    begun_while(monkeypatch, again)
    asked(root, out, codec, Part(1, 1))()
    assert len(refused) == 1
    run(root, tmp_path / "whole", codec)
    assert files(out) == files(tmp_path / "whole")
    assert list(out.glob(".lock-part-*"))
    run(root, out, codec)
    assert not list(out.glob(".lock-part-*"))


def test_parts_of_other_settings(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    first, loud = asked(root, out, codec, Part(1, 2)), Loudness(mix_lufs=-20.0)
    begun_while(monkeypatch, asked(root, out, codec, Part(2, 2), loudness=loud))
    with pytest.raises(
        PrepError, match=r"another part was begun meanwhile as generation .* \(what differs: loudness\)"
    ):
        first()
    asked(root, out, codec, Part(2, 2))()
    assert first().work is None
    run(root, tmp_path / "whole", codec)
    assert files(tmp_path / "whole").items() <= files(out).items()


def test_every_shard_is_one_parts() -> None:
    names = [f"train-{number:06d}.tar" for number in range(10)]
    taken = [Part(number, 4).takes(names) for number in range(1, 5)]
    assert sorted(name for each in taken for name in each) == names
    for text in ("0/3", "4/3", "3", "1/0", "-1/3", "1/3x", "a/b"):
        with pytest.raises(PrepError, match="it must be I/N with I from 1 to N, such as 2/3"):
            Part.of_text(text)
