"""Another codec for the same plan: what is not computed again, who reads what meanwhile, and the way back."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import shards
from prep import draft
from prep.build import build
from prep.cli import main
from prep.config import Augment, PrepConfig
from prep.errors import PrepError
from prep.generations import generations, prune
from prep.lock import locked
from prep.rebuild import rebuild
from tests.prep.built import corpus_at, files, run, work_here
from tests.prep.made import save_small_codec, tones, write_corpus, write_track

RENDITIONS = Augment(renditions=1, speed_probability=1.0)


def test_only_the_encodings_are_new(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    other = save_small_codec(tmp_path, seed=1)
    run(root, out, codec, augment=RENDITIONS)
    before = shards.open(out)
    old = {record.id: (record.meta, record["levels"][:].copy(), record["stems"][:].copy()) for record in before}
    run(root, tmp_path / "fresh", other, augment=RENDITIONS)
    work_here(monkeypatch)
    for name in ("prep.scan.scan_stem", "prep.measure.Meter.feed", "prep.stages.mixing.draw_mixes"):
        monkeypatch.setattr(name, None)  # would be called
    report = rebuild(out, root, other, workers=1, progress=False)
    after = shards.open(out)
    assert report.work and report.work.copied == 0 and report.work.stages["measure"] < 0.05
    assert after.index["plan"] == before.index["plan"] and after.codec != before.codec
    for record in after:
        meta, levels, stems = old[record.id]
        assert record.meta == meta
        np.testing.assert_array_equal(record["levels"], levels)
        assert not np.array_equal(record["stems"], stems)
    # and it is what a build from nothing with that codec gives, byte for byte
    assert files(tmp_path / "fresh").items() <= files(out).items()
    # who opened the old generation reads on
    assert all(np.array_equal(record["stems"], old[record.id][2]) for record in before)


def test_there_and_back(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    first = run(root, out, codec).generation
    whole = files(out)
    run_cli = CliRunner().invoke
    other = save_small_codec(tmp_path, seed=1)
    result = run_cli(main, ["rebuild", str(out), "--codec", other, "--root", str(root), "--workers", "1"])
    assert result.exit_code == 0 and f"prep rollback {out}" in result.output
    second = shards.current(out)
    listed = run_cli(main, ["generations", str(out)]).output.splitlines()
    assert listed[0].startswith(f"* {second}") and listed[1].startswith(f"  {first}") and len(listed) == 2
    assert "3 examples" in listed[0] and other in listed[0] and second[:8] in listed[0]
    assert first in run_cli(main, ["rollback", str(out)]).output and shards.current(out) == first
    assert files(out).items() >= whole.items()
    assert "so nothing to go back to" in run_cli(main, ["rollback", str(out)]).output
    # forward again: the shards are there
    again = rebuild(out, root, other, workers=1, progress=False)
    assert again.work is None and shards.current(out) == second
    result = run_cli(main, ["generations", str(out), "--prune", "--keep", "0"])
    assert "1 generations removed" in result.output and [each.name for each in generations(out)] == [second]


def test_an_interrupted_rebuild_leaves_the_old_generation_live(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    first = run(root, out, codec).generation
    with monkeypatch.context() as patched:
        patched.setattr("prep.draft.build_examples", None)
        with pytest.raises(TypeError):
            rebuild(out, root, save_small_codec(tmp_path, seed=1), workers=1, progress=False)
    assert shards.current(out) == first and len(shards.open(out)) == 3
    listed = generations(out)
    assert [each.index is None for each in listed] == [False, True] and "not complete" in listed[1].line()
    prune(out, keep=1)
    assert [each.name for each in generations(out)] == [first]


def test_what_a_build_completes_is_not_pruned(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not complete when prune begins, it is live when prune may write."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    other = save_small_codec(tmp_path, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr("prep.build.complete", lambda out: None)
        patched.setattr("prep.build.Report", lambda *_: None)
        rebuild(out, root, other, workers=1, progress=False)
    assert [each.index is None for each in generations(out)] == [False, True]

    def ended(out: Path) -> AbstractContextManager[None]:
        rebuild(out, root, other, workers=1, progress=False)
        return locked(out)

    monkeypatch.setattr("prep.generations.locked", ended)
    assert prune(out, keep=1) == [] and len(shards.open(out)) == 3


def test_a_ledger_of_a_build_that_went_no_further(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the ledger and before the plan: a rebuild would count songs that it does not hold."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    write_track(root / "train/Track00077", tones(9))
    with monkeypatch.context() as patched:
        patched.setattr("prep.build.write_plan", None)
        with pytest.raises(TypeError):
            run(root, out, codec)
    other = save_small_codec(tmp_path, seed=1)
    with pytest.raises(PrepError, match=r"differ in 4 files \(train/Track00077/stems/S00.flac, ...\)"):
        rebuild(out, root, other, workers=1, progress=False)
    run(root, out, codec)
    assert rebuild(out, root, other, workers=1, progress=False).index["counts"]["used"] == 15


def test_weights_that_are_written_anew_meanwhile(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a training run, say: latents of others would lie under the name of those that the build began with."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    save_small_codec(tmp_path, seed=1)
    planned = draft.make_plan

    def replaced(*args: Any) -> Any:
        (tmp_path / "small-1.safetensors").replace(tmp_path / "small-0.safetensors")
        return planned(*args)

    monkeypatch.setattr(draft, "make_plan", replaced)
    with pytest.raises(PrepError, match=r"small-0.safetensors has changed since this run began. Run the same command"):
        run(root, out, codec)
    assert not list(out.rglob("*.tar"))


def test_a_song_more_leaves_the_other_shards_as_they_are(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec)
    places = {path.name: path.stat().st_ino for path in out.glob("generations/*/*.tar")}
    (root / "test/Track00004").rename(tmp_path / "Track00004")
    report = run(root, out, codec)
    assert report.work and (report.work.encoded, sorted(report.work.kept)) == (
        0,
        ["train-000000.tar", "validation-000000.tar"],
    )
    for name in report.work.kept:
        assert (out / "generations" / report.generation / name).stat().st_ino == places[name]
    run(root, tmp_path / "fresh", codec)
    assert files(tmp_path / "fresh").items() <= files(out).items()
    assert generations(out)[0].own_bytes < generations(out)[0].bytes / 2


def test_a_damaged_shard_is_not_taken_over(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec)
    tar = next(out.glob("generations/*/train-000000.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    (root / "test/Track00004").rename(tmp_path / "Track00004")
    report = run(root, out, codec)
    assert report.work and report.work.kept == ["validation-000000.tar"] and report.work.encoded > 0
    run(root, tmp_path / "fresh", codec)
    assert files(tmp_path / "fresh").items() <= files(out).items()


def test_what_cannot_be_rebuilt_is_told(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    other = save_small_codec(tmp_path, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr("prep.rebuild.load_codec", lambda spec: _OtherRate())
        with pytest.raises(PrepError, match=r"has sample_rate 32000, the codec that .* was planned for 44100"):
            rebuild(out, root, other, workers=1)
    build(corpus_at(root), tmp_path / "more", PrepConfig(codec=codec, seed=5), 1, progress=False)
    (out / "plan.parquet").write_bytes((tmp_path / "more" / "plan.parquet").read_bytes())
    with pytest.raises(PrepError, match=r"plan\.parquet is not the plan of the live generation"):
        rebuild(out, root, other, workers=1)
    with pytest.raises(PrepError, match="holds no generations"):
        generations(tmp_path)


class _OtherRate:
    class identity:
        sample_rate, channels = 32000, 2
