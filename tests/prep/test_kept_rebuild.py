"""Rebuilds from kept audio, and builds that keep it: interrupted, damaged, added to, pruned."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from prep import draft
from prep.cli import main
from prep.config import Augment, Mixing
from prep.errors import PrepError
from prep.kept import kept_in
from prep.mixes import add_mixes
from prep.rebuild import rebuild
from prep.report import Report
from prep.verify import verify
from tests.prep.built import corpus_at, files, run, work_here
from tests.prep.made import save_small_codec, tones, write_corpus, write_track
from tests.prep.test_kept import audio_files

RENDITIONS = Augment(renditions=1, speed_probability=1.0)


def kept(root: Path, out: Path, codec: str, **settings: Any) -> Report:
    return run(root, out, codec, keep_audio=True, **settings)


def bare(root: Path) -> Path:
    """The same corpus, all its audio gone."""
    return root.rename(root.with_name("gone"))


@pytest.fixture
def other(tmp_path: Path) -> str:
    return save_small_codec(tmp_path, seed=1)


def test_kept_audio_gives_the_bytes_that_sources_give(
    tmp_path: Path, codec: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, out, codec, augment=RENDITIONS)
    kept(root, tmp_path / "fresh", other, augment=RENDITIONS)
    shutil.copytree(out, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/audio")
    from_sources = rebuild(tmp_path / "again", root, other, workers=1, progress=False)
    assert from_sources.work and from_sources.work.stem_s > 0
    # equal FLACs, too, whoever wrote them
    assert audio_files(tmp_path / "again") == audio_files(out) == audio_files(tmp_path / "fresh") != {}
    bare(root)
    for name in ("prep.stem.load_stem", "prep.measure.Meter.feed", "prep.pieces.mix_audio", "prep.stem.augment"):
        monkeypatch.setattr(name, None)  # would be called
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*/*")}
    report = rebuild(out, None, other, workers=1, progress=False)
    assert report.work and (report.work.copied, report.work.stem_s) == (0, 0) and report.work.encoded > 30
    assert files(out).items() >= files(tmp_path / "fresh").items()
    assert files(out) == files(tmp_path / "again")
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("audio/*/*")}


def test_two_workers_keep_the_same(tmp_path: Path, codec: str, other: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, out, codec)
    kept(root, tmp_path / "two", codec, workers=2)
    bare(root)
    rebuild(out, None, other, workers=1, progress=False)
    rebuild(tmp_path / "two", None, other, workers=2, progress=False)
    assert files(out) == files(tmp_path / "two")
    assert audio_files(out) == audio_files(tmp_path / "two")


def test_one_damaged_member(tmp_path: Path, codec: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    kept(root, out, codec)
    whole = audio_files(out)
    kept(root, tmp_path / "fresh", other)
    flac = next(flac for flac in kept_in(out).values() if flac.name == "track00001.0.flac")
    data = bytearray(flac.path.read_bytes())
    data[flac.offset + flac.size // 2] ^= 1
    flac.path.write_bytes(data)
    with pytest.raises(PrepError, match=r"track00001\.0\.flac in .*train-000000\.tar is damaged\. .*--root FOLDER"):
        rebuild(out, None, other, workers=1, progress=False)
    report = rebuild(out, root, other, workers=1, progress=False)
    assert report.work and report.work.stem_s == 3.0  # that stem of 3 s, and no other
    assert "track00001.0.flac" in (told := capsys.readouterr().out) and "is damaged, so sources are read" in told
    assert files(tmp_path / "fresh").items() <= files(out).items()
    # what the line says to do
    flac.path.unlink()
    kept(root, out, other)
    assert audio_files(out) == whole


def test_a_shard_without_its_audio_is_not_finished(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, out, codec)
    whole, audio = files(out), audio_files(out)
    assert "nothing to do" in kept(root, out, codec).lines()[0]
    times = {path: path.stat().st_mtime_ns for path in out.glob("generations/*/*")}
    next(out.glob("audio/*/train-000000.json")).unlink()
    with pytest.raises(PrepError, match=r"1 of 3 shards are not there \(train-000000\.tar"):
        from prep.build import complete

        complete(out)
    report = kept(root, out, codec)
    assert report.work and report.work.encoded == 0
    assert files(out) == whole and audio_files(out) == audio
    # and who reads the live generation is not in the way
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("generations/*/*")}


def test_an_interrupted_build_goes_on(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=3), tmp_path / "out"
    kept(root, tmp_path / "whole", codec)
    for stop in ("track00002", "track00004", "the end of audio", "the end of a shard"):
        with monkeypatch.context() as patched:
            work_here(patched)
            _pull_the_plug(patched, stop)
            with pytest.raises(RuntimeError, match="pulled the plug"):
                kept(root, out, codec)
        # as SIGKILL leaves it, whom nobody tidies up after
        left = next(out.glob("generations/*")) / ".track00003.part"
        left.mkdir(exist_ok=True)
        (left / "track00003.0.flac").write_bytes(b"half")
        (out / "audio").mkdir(exist_ok=True)
        for folder in out.glob("audio/*"):
            (folder / ".test-000000.tar.77.part").write_bytes(b"half")
    kept(root, out, codec)
    assert files(out) == files(tmp_path / "whole")
    assert audio_files(out) == audio_files(tmp_path / "whole")
    assert not list(out.rglob("*.part"))


def _pull_the_plug(patched: pytest.MonkeyPatch, stop: str) -> None:
    def fails(*args: Any, **others: Any) -> Any:
        raise RuntimeError("pulled the plug")

    made = draft.build_examples
    if stop == "the end of audio":
        patched.setattr("prep.kept.dump_json", fails)
    elif stop == "the end of a shard":
        patched.setattr("shards.writer.dump_json", fails)
    else:
        patched.setattr(draft, "build_examples", lambda job, **o: fails() if job.id == stop else made(job, **o))


def test_a_song_more_keeps_the_rest_as_it_is(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, out, codec)
    inodes = {path.name: path.stat().st_ino for path in out.glob("audio/*/*.tar")}
    write_track(root / "train/Track00077", tones(9))
    report = kept(root, out, codec)
    folder = out / "audio" / shards.open(out).index["plan"]
    for name in ("test-000000.tar", "validation-000000.tar"):
        assert (folder / name).stat().st_ino == inodes[name]
    # of the shard that changed, what was kept is copied: only the new song is read
    assert report.work and report.work.stem_s == 12.0
    kept(root, tmp_path / "fresh", codec)
    assert files(tmp_path / "fresh").items() <= files(out).items()
    assert audio_files(tmp_path / "fresh").items() <= audio_files(out).items()


def test_more_mixes(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, out, codec)
    report = add_mixes(out, root, 3, workers=1, progress=False)
    assert report.work and report.work.copied > 0 and report.work.encoded > 0
    kept(root, tmp_path / "fresh", codec, mixing=Mixing(subsets_per_target=5))
    assert files(tmp_path / "fresh").items() <= files(out).items()
    assert audio_files(tmp_path / "fresh").items() <= audio_files(out).items()


def test_parts_of_a_build(tmp_path: Path, codec: str) -> None:
    from prep.build import Part, build_part
    from prep.config import PrepConfig

    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    kept(root, tmp_path / "whole", codec)
    config = PrepConfig(codec=codec, keep_audio=True)
    for number in (1, 2, 3):
        report = build_part(corpus_at(root), out, config, 1, Part(number, 3), progress=False)
        assert len(report.missing) == 3 - number
    assert files(out) == files(tmp_path / "whole") and audio_files(out) == audio_files(tmp_path / "whole")


def test_told_pruned_and_verified(tmp_path: Path, codec: str, other: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    call = CliRunner().invoke
    words = ["rebuild", str(out), "--codec", other, "--workers", "1"]
    refused = call(main, words)
    assert refused.exit_code == 1 and "does not keep all audio of 3 of 3 examples" in refused.output
    first = kept(root, out, codec)
    size = sum(map(len, audio_files(out).values())) / 1e6
    listed = call(main, ["generations", str(out)]).output.splitlines()
    assert f"audio/{first.plan.digest}" in listed[-1] and f"{size:.1f} MB of kept audio in 3 tars" in listed[-1]
    bare(root)
    done = call(main, words)
    assert done.exit_code == 0 and "0 copied" in done.output, done.output
    assert verify(out, 1, progress=False)
    assert "complete: 3 shards" in call(main, ["status", str(out)]).output
    # both generations that are left have it
    call(main, ["generations", str(out), "--prune", "--keep", "1"])
    assert audio_files(out)
    root = root.with_name("gone")
    kept(root, out, codec, seed=1)
    assert len(list(out.glob("audio/*"))) == 2
    pruned = call(main, ["generations", str(out), "--prune", "--keep", "0"]).output
    assert [path.name for path in out.glob("audio/*")] == [shards.open(out).index["plan"]] and "freed" in pruned
    run(root, out, codec)
    call(main, ["generations", str(out), "--prune", "--keep", "0"])
    assert not list(out.glob("audio/*"))
