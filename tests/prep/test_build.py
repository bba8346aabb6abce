import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import shards
from prep.codecs import load_codec
from prep.config import Activity, Audio, Loudness
from prep.errors import PrepError
from prep.stages.activity import levels_db
from prep.stages.loudness import integrated_lufs
from tests.prep.built import encode, files, run
from tests.prep.made import RATE, tone, tones, write_corpus, write_track


def ledger(out: Path) -> dict[str, str]:
    rows = pd.read_parquet(out / "ledger.parquet").to_dict("records")
    return {row["path"]: row["reason"] or row["status"] for row in rows}


def test_a_stored_stream_is_what_the_law_says(tmp_path: Path, codec: str) -> None:
    """Every stream is re-made by hand from the sources and what the json says of them."""
    root = write_corpus(tmp_path / "corpus", train=1)
    run(root, tmp_path / "out", codec)
    dataset = shards.open(tmp_path / "out")
    assert len(dataset) == 3 and set(dataset.splits) == {"train", "validation", "test"}
    model = load_codec(codec)
    folders = {"train": "train/Track00001", "validation": "validation/Track00002", "test": "test/Track00003"}
    for record in (dataset[i] for i in range(len(dataset))):
        meta = record.meta
        folder = root / folders[meta["split"]] / "stems"
        sources = [
            np.repeat(sf.read(folder / f"{name}.flac", dtype="float32")[0][None], 2, 0) for name in meta["stems"]
        ]
        latents = np.concatenate([record["stems"], record["mixes"]])
        assert len(latents) == len(meta["members"]) == meta["n_stems"] + meta["n_mixes"]
        assert meta["frames"] == latents.shape[1] == -(-meta["samples"] // 4096)
        for stream, members in enumerate(meta["members"]):
            gains = meta["gains_db"]
            audio = sum(sources[i] * np.float32(10 ** (gains[i] / 20)) for i in members)
            if len(members) > 1:
                audio = audio * np.float32(10 ** (gains[stream] / 20))
            np.testing.assert_allclose(latents[stream], encode(model, audio), atol=2e-2, rtol=2e-3)
            np.testing.assert_allclose(record["levels"][stream], levels_db(audio, RATE), atol=0.1)
            assert integrated_lufs(audio, RATE) == pytest.approx(meta["loudness_lufs"][stream], abs=0.01)
            assert np.abs(audio).max() <= 1.0001


def test_loudness_of_stems_and_mixes(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    run(root, tmp_path / "out", codec, loudness=Loudness(stem_lufs=-30.0, mix_lufs=-30.0, mix_offset_db=3.0))
    dataset = shards.open(tmp_path / "out")
    mixes = []
    for record in (dataset[i] for i in range(len(dataset))):
        loudness, n = record.meta["loudness_lufs"], record.meta["n_stems"]
        np.testing.assert_allclose(loudness[:n], -30.0, atol=1e-3)
        mixes += loudness[n:]
    assert all(-33 <= value <= -27 for value in mixes) and len({round(v, 2) for v in mixes}) == len(mixes) > 2


def test_over_full_scale_is_attenuated(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    run(root, tmp_path / "out", codec, loudness=Loudness(stem_lufs=0.0, mix_lufs=0.0))
    record = shards.open(tmp_path / "out")[0]
    audio = sf.read(root / "train/Track00001/stems/S00.flac", dtype="float32")[0]
    assert np.abs(audio).max() * 10 ** (record.meta["gains_db"][0] / 20) == pytest.approx(1.0, abs=1e-4)
    assert record.meta["loudness_lufs"][0] < 0


def test_same_bytes_for_any_workers_and_place(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    run(root, tmp_path / "one", codec)
    moved = tmp_path / "elsewhere" / "corpus"
    shutil.copytree(root, moved)
    run(moved, tmp_path / "two", codec, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}


def test_bad_input_is_a_row_and_the_build_goes_on(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=4)
    truncated = root / "train/Track00001/stems/S00.flac"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    write_track(root / "train/Track00020", {**tones(1, 3), "S03": np.full(RATE, np.nan, np.float32)}, suffix="wav")
    write_track(root / "train/Track00021", {"S00": tone(1)})
    write_track(root / "train/Track00022", {**tones(2, 2), "S02": np.zeros(3 * RATE, np.float32)})
    write_track(root / "train/Track00023", {"S00": tone(1, 3.0), "S01": tone(2, 2.0), "S02": tone(3, 2.5)})
    report = run(root, tmp_path / "out", codec, max_bad_fraction=0.2)
    found = ledger(tmp_path / "out")
    assert found["train/Track00001/stems/S00.flac"] in ("truncated", "corrupt")
    assert found["train/Track00020/stems/S03.wav"] == "not_finite"
    assert found["train/Track00021/stems/S00.flac"] == "too_few_stems"
    assert found["train/Track00022/stems/S02.flac"] == "silent"
    assert found["train/Track00023/stems/S01.flac"] == "used"
    dataset = shards.open(tmp_path / "out")
    ids = {dataset[i].id: dataset[i] for i in range(len(dataset))}
    assert ids["track00001"].meta["stems"] == ["S01", "S02", "S03"]
    assert "track00021" not in ids
    padded = ids["track00023"]
    assert padded.meta["samples"] == 3 * RATE
    assert (np.asarray(padded["levels"][1, 110:], np.float32) < -100).all()
    text = "\n".join(report.lines())
    for shown in ("too_few_stems", "not_finite", "silent", "padded from", "quarantined"):
        assert shown in text
    everything = pd.read_parquet(tmp_path / "out/ledger.parquet")
    assert len(everything) == len(list(root.rglob("stems/*"))) == sum(everything["status"].value_counts())


def test_too_much_broken_stops_the_build(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    for path in root.glob("train/*/stems/*"):
        path.write_bytes(b"fLaC")
    with pytest.raises(PrepError, match=r"files are broken .* max_bad_fraction .* train/Track00001/stems/S00.flac"):
        run(root, tmp_path / "out", codec)


def test_another_rate_needs_leave(tmp_path: Path, codec: str) -> None:
    root = tmp_path / "corpus"
    for number in (1, 1600, 1900):
        write_track(root / f"Track{number:05d}", tones(number % 7, 3, rate=16000), rate=16000, suffix="wav")
    with pytest.raises(PrepError, match=r"nothing to build: 9 of 9 files: rate \(16000 Hz.*audio.resample=true"):
        run(root, tmp_path / "out", codec)
    run(root, tmp_path / "out", codec, audio=Audio(resample=True))
    assert {name: split["examples"] for name, split in shards.open(tmp_path / "out").splits.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(PrepError, match="holds files that are not a dataset's"):
        run(root, tmp_path / "thesis", codec)
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepError, match="cannot be made"):
        run(root, tmp_path / "file" / "out", codec)


def test_a_mix_over_full_scale_is_attenuated(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    run(root, tmp_path / "out", codec, loudness=Loudness(mix_lufs=0.0, mix_offset_db=0.0))
    for record in (shards.open(tmp_path / "out")[i] for i in range(3)):
        folder = root / record.meta["split"] / f"Track{record.id[5:]}" / "stems"
        sources = [sf.read(folder / f"{name}.flac", dtype="float32")[0] for name in record.meta["stems"]]
        gains = record.meta["gains_db"]
        for stream in range(record.meta["n_stems"], len(gains)):
            mix = sum(sources[i] * 10 ** (gains[i] / 20) for i in record.meta["members"][stream])
            assert np.abs(mix).max() * 10 ** (gains[stream] / 20) == pytest.approx(1.0, abs=1e-4)


def test_silence_gives_no_nan_and_statistics_are_right(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=2)
    half_silent = np.concatenate([tone(1, 1.5), np.zeros(3 * RATE // 2, np.float32)])
    write_track(root / "train/Track00030", {"S00": half_silent, "S01": half_silent, "S02": np.zeros(3 * RATE)})
    run(root, tmp_path / "out", codec, activity=Activity(min_active_s=0.0, threshold_db=-119.0))
    dataset = shards.open(tmp_path / "out")
    train = dataset.split("train")
    stems = np.concatenate([np.asarray(train[i]["stems"], np.float64).reshape(-1, 10) for i in range(len(train))])
    moments = train.moments("stem")
    np.testing.assert_allclose(moments.mean, stems.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.std, stems.std(0), rtol=1e-4)
    quiet = next(record for record in (train[i] for i in range(len(train))) if record.id == "track00030")
    assert quiet.meta["n_stems"] == 2 and (np.asarray(quiet["levels"])[:, 110:] == -120).all()
    text = json.dumps(dataset.index)
    assert "NaN" not in text and "Infinity" not in text
    assert torch.isfinite(torch.from_numpy(stems)).all()
