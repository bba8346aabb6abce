"""Renditions of recorded multitracks: which are made, of what, and that the record makes them again."""

import json
from pathlib import Path

import numpy as np
import pytest

import shards
from prep.codecs import load_codec
from prep.config import Audio, Augment, Loudness
from prep.errors import PrepError
from prep.excerpt import write_excerpt
from prep.plan import read_plan
from prep.scan import Target
from prep.stages.augment import Augmentation
from prep.stages.loudness import integrated_lufs
from prep.stem import read_stem
from tests.prep.built import encode, files, run
from tests.prep.made import RATE, write_corpus

TWO = Augment(renditions=2, low_pass_probability=0.5)


def test_only_training_multitracks_have_renditions(tmp_path: Path, codec: str) -> None:
    report = run(write_corpus(tmp_path / "corpus"), tmp_path / "out", codec, augment=TWO)
    dataset = shards.open(tmp_path / "out")
    ids = {record.id: record.meta for record in dataset}
    assert sorted(ids) == ["track00001", "track00001--r1", "track00001--r2", "track00002", "track00002--r1",
                           "track00002--r2", "track00003", "track00004"]  # fmt: skip
    assert {meta["original"] for id, meta in ids.items() if id.startswith("track00001")} == {"track00001"}
    assert ids["track00001"]["augmentation"] == "{}"
    drawn = [json.loads(ids[id]["augmentation"]) for id in ids if "--r" in id]
    assert all(drawn) and len({json.dumps(each) for each in drawn}) == len(drawn)
    counts = dataset.index["counts"]
    assert (counts["multitracks"], counts["renditions"]) == (4, 4)
    assert "4 of the examples are renditions" in "\n".join(report.lines())


def test_a_rendition_is_made_again_from_its_record(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    settings = Loudness(mix_offset_db=0.0)
    run(root, tmp_path / "out", codec, augment=TWO, loudness=settings)
    model, target = load_codec(codec), Target(RATE, 2, Audio())
    record = next(r for r in shards.open(tmp_path / "out") if r.id == "track00002--r1")
    row = next(r for r in read_plan(tmp_path / "out/plan.parquet") if r.id == record.id)
    meta = record.meta
    speed = Augmentation.from_json(meta["augmentation"]).speed
    assert meta["samples"] == -(-3 * RATE // speed)
    audio = [read_stem(row, i, root, target) for i in range(meta["n_stems"])]
    for stream, members in enumerate(meta["members"]):
        total = sum(audio[i] * np.float32(10 ** (meta["gains_db"][i] / 20)) for i in members)
        if len(members) > 1:
            total = total * np.float32(10 ** (meta["gains_db"][stream] / 20))
        latents = record["stems"][stream] if stream < meta["n_stems"] else record["mixes"][stream - meta["n_stems"]]
        np.testing.assert_allclose(latents, encode(model, total), atol=2e-2, rtol=2e-3)
        assert integrated_lufs(total, RATE) == pytest.approx(meta["loudness_lufs"][stream], abs=0.01)
        assert np.abs(total).max() <= 1.0001
    drawn = np.array(row.drawn_gains_db)
    assert (np.abs(drawn) <= 3).all() and len(set(drawn)) == len(drawn)
    np.testing.assert_allclose(meta["loudness_lufs"][: meta["n_stems"]], -18 + drawn, atol=0.01)


def test_more_renditions_move_none(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec, augment=Augment(renditions=1))
    first = {record.id: record["stems"][:].tobytes() for record in shards.open(out)}
    report = run(root, out, codec, augment=TWO.model_copy(update={"low_pass_probability": 0.1}))
    second = {record.id: record["stems"][:].tobytes() for record in shards.open(out)}
    assert first.items() < second.items()
    assert report.work and report.work.copied > 0
    assert {id for id in second if id not in first} == {"track00001--r2", "track00002--r2"}


def test_any_number_of_workers_gives_the_same_renditions(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    run(root, tmp_path / "one", codec, augment=TWO)
    run(root, tmp_path / "two", codec, augment=TWO, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}


def test_a_rendition_can_be_heard(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec, augment=TWO)
    heard = write_excerpt(out, root, tmp_path / "listen", "Bass", id="track00001--r2")
    assert heard.id == "track00001--r2" and all(path.is_file() for path in heard.paths)


def test_a_rendition_of_another_plan_is_not_replayed(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(root, out, codec, augment=TWO)
    run(root, tmp_path / "other", codec, augment=TWO, seed=7)
    (tmp_path / "other/plan.parquet").replace(out / "plan.parquet")
    with pytest.raises(PrepError, match="later, unfinished build without track00001--r2"):
        write_excerpt(out, root, tmp_path / "listen", "Bass", id="track00001--r2")
