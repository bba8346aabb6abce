"""What is told of a dataset that is complete, stale or missing."""

import shutil
from pathlib import Path

import pytest
import soundfile as sf
from click.testing import CliRunner

import shards
from prep.cli import main
from prep.config import Mixing
from tests.prep.built import run
from tests.prep.made import RATE, save_small_codec, tone, tones, write_corpus, write_track


def told(out: Path, root: Path | None = None) -> str:
    result = CliRunner().invoke(main, ["status", str(out), *(["--root", str(root)] if root else [])])
    return result.output


def test_all_that_can_be_stale(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    report = run(root, out, codec)
    assert told(out, root).splitlines()[1:] == [
        "complete: 3 shards, by this release and the codec as it is now",
        "sources: 14 as they were",
    ]
    assert "sources: not looked at; give --root" in told(out)
    stems = root / "train/Track00001/stems"
    (stems / "S01.flac").touch()
    assert "sources: 14 as they were, 1 of them touched" in told(out, root)
    sf.write(stems / "S02.flac", tone(30), RATE, subtype="PCM_16")
    meta = next(record for record in shards.open(out) if record.id == "track00001").meta
    reached = sum(2 in members for members in meta["members"])
    assert f"stale: {reached} streams; 1 sources changed (train/Track00001/stems/S02.flac, ...)" in told(out, root)
    shutil.rmtree(root / "test")
    write_track(root / "train/Track00077", tones(9))
    assert "sources are gone (test/Track00004/stems/S00.flac, ...)" in told(out, root)
    assert "missing: 4 sources are new (train/Track00077/stems/S00.flac, ...)" in told(out, root)
    with monkeypatch.context() as patched:
        patched.setattr("prep.reuse.AUDIO_VERSION", 2)
        assert "stale: 3 of 3 shards (train-000000.tar, ...); this release makes them otherwise" in told(out)
    tar = next(out.glob("generations/*/test-000000.tar"))
    tar.rename(tmp_path / "away")
    assert "missing: " in told(out) and "test-000000.tar" in told(out)
    (tmp_path / "away").rename(tar)
    save_small_codec(tmp_path, seed=1)
    (tmp_path / "small-1.safetensors").replace(tmp_path / "small-0.safetensors")
    assert "stale: every stream; codec" in told(out)
    (out / "generations" / report.generation / "dataset.json").unlink()
    assert "not complete: 3 shards are finished" in told(out) and "missing: " in told(out)


def test_another_build_was_begun(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan lies there, and the live generation is told of all the same."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    live = run(root, out, codec).generation
    with monkeypatch.context() as patched:
        patched.setattr("prep.draft.build_examples", None)
        with pytest.raises(TypeError):
            run(root, out, codec, mixing=Mixing(subsets_per_target=4))
    lines = told(out, root).splitlines()
    assert lines[0].startswith(f"* {live}") and len(lines) == 4
    assert lines[2].startswith("stale: the plan; ") and lines[3].startswith("sources: not looked at; ")


def test_no_dataset(tmp_path: Path) -> None:
    assert "holds no generations" in told(tmp_path)
