"""Building again: after an interruption, a change, a smaller run, a fault."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

import shards
from prep.build import build
from prep.config import Mixing, PrepConfig
from prep.draft import Corpus
from prep.errors import PrepError
from prep.sources.slakh import read_slakh
from tests.prep.built import files, run, work_here
from tests.prep.made import RATE, save_small_codec, tone, tones, write_corpus, write_track


def test_a_second_build_does_nothing_and_says_so(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    first = run(root, out, codec)
    assert "built in" in first.lines()[0]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    again = run(root, out, codec)
    assert "complete already, nothing to do" in again.lines()[0]
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}


def test_an_interrupted_build_goes_on(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_corpus(tmp_path / "corpus")
    run(root, tmp_path / "whole", codec)
    from prep import draft as module

    made = module.build_examples

    def fails(bundle: Any, **others: Any) -> Any:
        if bundle.jobs[0].row.split == "test":
            raise RuntimeError("pulled the plug")
        return made(bundle, **others)

    work_here(monkeypatch)
    monkeypatch.setattr(module, "build_examples", fails)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run(root, tmp_path / "out", codec)
    with pytest.raises(shards.ShardError, match="prep build"):
        shards.open(tmp_path / "out")
    done = next((tmp_path / "out").glob("generations/*/train-000000.tar")).stat().st_mtime_ns
    monkeypatch.setattr(module, "build_examples", made)
    run(root, tmp_path / "out", codec)
    assert files(tmp_path / "whole") == files(tmp_path / "out")
    assert next((tmp_path / "out").glob("generations/*/train-000000.tar")).stat().st_mtime_ns == done


def test_a_damaged_shard_is_built_again(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec)
    before = files(out)
    tar = next(out.glob("generations/*/test-000000.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    run(root, out, codec)
    assert files(out) == before


def test_settings_and_codec_name_the_generation(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    names = [
        run(root, out, codec).generation,
        run(root, out, save_small_codec(tmp_path, seed=1)).generation,
        run(root, out, codec, mixing=Mixing(size_law="all")).generation,
    ]
    plans, codecs = zip(*(name.split("-causal-") for name in names), strict=True)
    assert plans[0] == plans[1] != plans[2] and codecs[0] == codecs[2] != codecs[1]
    assert shards.current(out) == names[2]


@pytest.mark.parametrize("change", ["gone", "another", "longer", "stereo"])
def test_a_source_that_changes_after_the_scan(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    source = root / "train/Track00001/stems/S00.flac"
    from prep import draft as module

    planned = module.make_plan

    def change_then_plan(*args: Any, **others: Any) -> Any:
        plan = planned(*args, **others)
        audio = {"another": tone(7), "longer": tone(1, 5.0), "stereo": np.stack([tone(1)] * 2), "gone": None}[change]
        source.unlink()
        if audio is not None:
            sf.write(source, audio.T, RATE)
        return plan

    monkeypatch.setattr(module, "make_plan", change_then_plan)
    reasons = "missing_audio|other content"
    with pytest.raises(PrepError, match=rf"S00.flac has changed since it was scanned \(({reasons})\).*--rescan"):
        run(root, tmp_path / "out", codec)
    monkeypatch.setattr(module, "make_plan", planned)
    run(root, tmp_path / "out", codec)
    run(root, tmp_path / "fresh", codec)
    built = next((tmp_path / "fresh").glob("generations/*")).name
    assert files(tmp_path / "fresh").items() <= files(tmp_path / "out").items()
    assert shards.current(tmp_path / "out") == built


def test_a_smaller_run_between_does_not_cost_the_scan(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=3), tmp_path / "out"
    run(root, out, codec)
    multitracks, _ = read_slakh(root)
    build(Corpus("slakh", root, multitracks[:2]), out, PrepConfig(codec=codec), 1, progress=False)
    assert len(shards.open(out)) == 2
    work_here(monkeypatch)
    monkeypatch.setattr("prep.scan._scan_stem", None)  # would be called for what is not known
    run(root, out, codec)
    assert len(shards.open(out)) == 5


def test_an_interrupted_scan_keeps_what_it_measured(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=2), tmp_path / "out"
    from prep import scan as module

    measure = module._scan_stem
    seen: list[str] = []
    stopped: list[bool] = []

    def counted(job: Any, *others: Any) -> Any:
        if job.row.id == "track00003" and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        seen.append(job.row.id)
        return measure(job, *others)

    work_here(monkeypatch)
    monkeypatch.setattr(module, "_scan_stem", counted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(root, out, codec)
    assert set(seen) == {"track00001", "track00002"}
    assert caught.value.__notes__ == [f"{len(seen)} of 14 files are scanned"]
    seen.clear()
    run(root, out, codec)
    assert set(seen) == {"track00003", "track00004"}


def test_the_index_tells_what_was_left_out_now(tmp_path: Path, codec: str) -> None:
    """A broken Track folder changes no stream, yet the counts are those of a build from nothing."""
    root, out = write_corpus(tmp_path / "corpus", train=2), tmp_path / "out"
    run(root, out, codec)
    (root / "train" / "Track00077").mkdir()
    again = run(root, out, codec)
    assert "nothing to do" in again.lines()[0]
    run(root, tmp_path / "fresh", codec)
    assert files(out) == files(tmp_path / "fresh")
    assert shards.open(out).index["counts"]["quarantined"] == 1


def test_other_music_wants_another_folder(tmp_path: Path, codec: str) -> None:
    run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", codec)
    before = files(tmp_path / "out")
    write_track(tmp_path / "other" / "train" / "Track00777", tones(5))
    with pytest.raises(
        PrepError, match=r"3 multitracks \(slakh: track00001, ...\), none of which is among the 1 of slakh"
    ):
        run(tmp_path / "other", tmp_path / "out", codec)
    assert files(tmp_path / "out") == before


def test_what_is_no_file_is_in_the_ledger(tmp_path: Path, codec: str) -> None:
    """A pipe, a link that leads nowhere, and one out of the corpus, which is as good as a file."""
    root = write_corpus(tmp_path / "corpus", train=1)
    stems = root / "train/Track00001/stems"
    os.mkfifo(stems / "S08.flac")
    (stems / "S09.flac").symlink_to(tmp_path / "nowhere")
    (stems / "S00.flac").rename(tmp_path / "elsewhere.flac")
    (stems / "S00.flac").symlink_to(tmp_path / "elsewhere.flac")
    report = run(root, tmp_path / "out", codec, max_bad_fraction=0.5)
    told = {row.path.rpartition("/")[2]: (row.status, row.reason) for row in report.ledger if "Track00001" in row.path}
    assert told["S08.flac"] == ("quarantined", "unreadable")
    assert told["S09.flac"] == ("quarantined", "missing_audio")
    assert told["S00.flac"] == ("used", "")
