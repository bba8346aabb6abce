"""Files that hang, or promise more than memory holds."""

import os
from pathlib import Path

import pandas as pd
import pytest

import shards
from prep.audio import content_digest, read_audio
from prep.build import finish
from prep.config import Limits, PrepConfig
from prep.draft import survey
from prep.engines import Lost
from prep.errors import Reject
from tests.prep.built import corpus_at, files, run
from tests.prep.hang import hanging
from tests.prep.made import write_corpus

# longer than any file here takes on a machine that is busy with something else
LIMITS = Limits(decode_s=5.0)


def reasons(out: Path) -> dict[str, str]:
    return pd.read_parquet(out / "ledger.parquet").set_index("path")["reason"].to_dict()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_hangs_is_given_up_and_the_build_goes_on(tmp_path: Path, codec: str, workers: int) -> None:
    root, stem = write_corpus(tmp_path / "corpus"), "train/Track00001/stems/S03.flac"
    with hanging(root / stem):
        report = run(root, tmp_path / "out", codec, workers, max_bad_fraction=0.1, limits=LIMITS)
    found = reasons(tmp_path / "out")
    assert found.pop(stem) == "gave_up" and set(found.values()) == {""} and len(found) == 13
    row = next(row for row in report.ledger if row.path == stem)
    assert row.status == "quarantined" and "not read within 5 s" in row.detail and "limits.decode_s" in row.detail
    assert next(iter(shards.open(tmp_path / "out").split("train"))).meta["stems"] == ["S00", "S01", "S02"]
    # it answers again: nobody has to say --rescan
    run(root, tmp_path / "out", codec, workers, max_bad_fraction=0.1, limits=LIMITS)
    run(root, tmp_path / "fresh", codec, max_bad_fraction=0.1)
    assert reasons(tmp_path / "out")[stem] == "" and shards.current(tmp_path / "out") == shards.current(
        tmp_path / "fresh"
    )


def test_while_building_it_is_an_error_that_names_the_file(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    draft = survey(corpus_at(root), out, PrepConfig(codec=codec, limits=LIMITS), 2, progress=False)
    with (
        hanging(root / "test/Track00004/stems/S01.flac"),
        pytest.raises(Lost, match=r"test/Track00004/stems/S01.flac: not read within 5 s.*--set limits.decode_s="),
    ):
        finish(draft, 2, progress=False)
    finish(draft, 2, progress=False)
    run(root, tmp_path / "fresh", codec, limits=LIMITS)
    assert files(out) == files(tmp_path / "fresh")


def test_a_header_that_promises_more_than_memory_holds(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    stem = "train/Track00001/stems/S03.flac"
    data = bytearray((root / stem).read_bytes())
    data[21] |= 0x0F  # STREAMINFO's 36 bits of total samples
    data[22:26] = b"\xff" * 4
    (root / stem).write_bytes(data)
    run(root, tmp_path / "out", codec, max_bad_fraction=0.1)
    assert reasons(tmp_path / "out")[stem] == "too_much_memory"
    told = read_audio(root / stem, 4e9)
    assert isinstance(told, Reject) and told.detail.startswith("274.9 GB by its header, the limit is 4; allow more")


def test_another_limit_lets_a_file_pass_without_a_rescan(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, tmp_path / "fresh", codec)
    survey(corpus_at(root), out, PrepConfig(codec=codec, limits=Limits(decode_gb=1e-4)), 1, progress=False)
    found = pd.read_parquet(out / "scan.parquet")
    assert set(found["reason"]) == {"too_much_memory"} and all(found["digest"])
    run(root, out, codec)
    assert set(reasons(out).values()) == {""} and files(out) == files(tmp_path / "fresh")


def test_limits_name_no_generation(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    first = run(root, out, codec)
    again = run(root, out, codec, limits=Limits(decode_s=77.0))
    assert again.generation == first.generation and again.work is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "S00.flac")
    assert read_audio(tmp_path / "S00.flac") == Reject("unreadable", "not a file but a folder, a pipe or a device")
    with pytest.raises(OSError, match="not a file"):
        content_digest(tmp_path / "S00.flac")
