"""A dry run tells what a build then gives. (How well it tells the time is a benchmark's to say.)"""

from dataclasses import replace
from pathlib import Path

import pytest

import shards
from prep.config import Augment, Mixing, PrepConfig
from prep.draft import Draft, survey
from prep.dryrun import SAMPLE_S, _busy_s, bytes_in, estimate, lines
from prep.errors import PrepError
from tests.prep.built import corpus_at, run
from tests.prep.made import save_small_codec, tones, write_corpus, write_track


def draft(root: Path, out: Path, codec: str, **settings: object) -> Draft:
    config = PrepConfig(codec=codec, **settings)  # type: ignore[arg-type]
    return survey(corpus_at(root), out, config, workers=1, progress=False)


def test_it_tells_what_is_then_built(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    augment = Augment(renditions=1)
    found = draft(root, out, codec, augment=augment)
    told = "\n".join(lines(found, workers=1))
    assert "ledger.parquet" not in told  # it is the build that writes it
    assert sorted(path.name for path in out.iterdir()) == ["scan.parquet"]
    report = run(root, out, codec, augment=augment)
    assert report.generation == found.generation
    index = shards.open(out).index
    split = index["splits"]["train"]
    assert f"train          2 multitracks + 2 renditions, {split['stems']} stems + {split['mixes']} mixes" in told
    assert f"{index['counts']['pairs']} pairs" in told.splitlines()[4] and told.splitlines()[4].startswith("  in all")
    foreseen = bytes_in(found.plan.rows, found.identity)
    built = sum(shard["bytes"] for each in index["splits"].values() for shard in each["shards"])
    assert foreseen == pytest.approx(built, rel=0.1)
    assert "with 1 workers, after the scan (measured on the first 20 s of 3 examples)" in told
    assert "nothing to encode" in "\n".join(lines(draft(root, out, codec, augment=augment), workers=1))


def test_the_estimate_is_of_what_is_left(tmp_path: Path, codec: str) -> None:
    """Of examples that were built whole it is the time they took."""
    root = write_corpus(tmp_path / "corpus", train=1)
    found = draft(root, tmp_path / "out", codec)
    jobs = found.jobs(list(found.plan.rows))
    found.folder.mkdir(parents=True)
    built = list(found.built(jobs, 1))
    once, twice = (_busy_s(times * jobs, jobs, built, 44100) for times in (1, 2))
    assert twice == pytest.approx(2 * once) and once > 0
    measured = sum(seconds for each in built for seconds in each.seconds.values())
    assert once == pytest.approx(measured - sum(each.seconds["copy"] for each in built), rel=1e-6)


def test_kept_audio_is_counted(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    guess = estimate(draft(root, out, codec, keep_audio=True), workers=1)
    run(root, out, codec, keep_audio=True)
    kept = sum(path.stat().st_size for path in out.glob("audio/*/*.tar"))
    assert guess.kept_bytes == pytest.approx(kept, rel=0.1)
    again = draft(root, out, codec, keep_audio=True)
    assert "nothing to encode" in lines(again, workers=1)[-1]
    next(out.glob("audio/*/train-*.json")).unlink()
    assert estimate(again, workers=1).sampled == 2  # whose audio is to be kept again; nothing is encoded
    plain = draft(root, tmp_path / "plain", codec)
    assert estimate(plain, workers=1).kept_bytes == 0 and not any("kept audio" in line for line in lines(plain, 1))


def test_the_certificate_is_counted(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of it was measured before the scan, and what would be measured after it."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    found = replace(draft(root, out, codec), admit_s=1000.0)
    guess = estimate(found, workers=1)
    assert 1000 < guess.certify_s < guess.build_s
    assert lines(found, workers=1)[-1].endswith("s of it to certify the codec")
    asked: list[Draft] = []
    monkeypatch.setattr("prep.dryrun.certificate_of", asked.append)
    estimate(found, workers=1)
    assert asked == [found]
    monkeypatch.undo()
    run(root, out, codec)
    monkeypatch.setattr("prep.certified.one_threaded", None)  # would be called for what is not certified
    next(out.glob("generations/*/test-*.tar")).unlink()
    assert estimate(draft(root, out, codec), workers=1).sampled == 1


def test_songs_longer_than_the_sample_of_which_a_part_is_known(tmp_path: Path, codec: str) -> None:
    for number, split in enumerate(("train", "test")):
        song = tones(number, stems=3, seconds=SAMPLE_S + 3)
        write_track(tmp_path / "corpus" / split / f"Track{number:05d}", song)
    root, out = tmp_path / "corpus", tmp_path / "out"
    run(root, out, codec, keep_audio=True, mixing=Mixing(subsets_per_target=1))
    more = draft(root, out, codec, keep_audio=True, mixing=Mixing(subsets_per_target=8))
    assert estimate(more, workers=1).sampled == 2
    other = draft(root, out, save_small_codec(tmp_path, 1), keep_audio=True, mixing=Mixing(subsets_per_target=1))
    guess = estimate(other, workers=1)  # whose audio is all kept
    assert guess.sampled == 2 and guess.build_s > guess.certify_s


def test_a_build_that_would_stop_says_so(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    for path in root.glob("train/*/stems/*"):
        path.write_bytes(b"fLaC")
    with pytest.raises(PrepError, match="max_bad_fraction"):
        lines(draft(root, tmp_path / "out", codec), workers=1)
