"""Whatever lies in a stems folder: a defined result, or a row in the ledger with its reason."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import shards
from prep.config import Audio
from tests.prep.built import run
from tests.prep.made import RATE, tone, tones, write_corpus, write_track

SECONDS = 3.0
NOISE = np.random.default_rng(0).uniform(-1, 1, round(SECONDS * RATE)).astype(np.float32)


def ms(length: float) -> np.ndarray:
    return tone(3)[: round(length * RATE / 1000)]


# what the ledger says of a stem like this beside three tones
STRANGE = {
    "silence": (np.zeros(3 * RATE), "silent"),
    "nothing": (np.zeros(0), "empty"),
    "1ms": (ms(1), "silent"),
    "399ms": (ms(399), "silent"),
    "dc": (np.full(3 * RATE, 0.5), "silent"),
    "full_scale_noise": (NOISE, ""),
    "beyond_full_scale": (NOISE * 50, ""),
    "nan": (np.where(np.arange(3 * RATE) == 9, np.nan, NOISE), "not_finite"),
    "infinity": (np.where(np.arange(3 * RATE) == 9, np.inf, NOISE), "not_finite"),
    "denormals": (NOISE * 1e-39, "silent"),
    "a_sample_longer": (np.append(tone(5), 0.1), ""),
    "a_sample_shorter": (tone(5)[:-1], ""),
    "longer": (tone(5, 5.0), ""),
    "six_channels": (np.stack([tone(4)] * 6), "channels"),
    "stereo": (np.stack([tone(4), tone(5)]), ""),
}


@pytest.mark.parametrize("unequal", ["pad", "trim"])
def test_each_has_a_defined_result(tmp_path: Path, codec: str, unequal: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    for number, (name, (audio, _)) in enumerate(STRANGE.items()):
        write_track(root / f"train/Track{100 + number:05d}", tones(1, stems=3) | {name: audio}, suffix="wav")
    run(root, tmp_path / "out", codec, max_bad_fraction=0.2, audio=Audio(unequal=unequal))
    ledger = pd.read_parquet(tmp_path / "out/ledger.parquet").set_index("stem")
    assert {name: ledger.loc[name, "reason"] for name in STRANGE} == {name: why for name, (_, why) in STRANGE.items()}
    records = {record.id: record for record in shards.open(tmp_path / "out")}
    for number, (name, (audio, why)) in enumerate(STRANGE.items()):
        record = records[f"track{100 + number:05d}"]
        assert (name in record.meta["stems"]) == (why == ""), name
        for member in ("stems", "mixes", "levels"):
            assert np.isfinite(np.asarray(record[member], np.float32)).all(), name
        lengths = [3 * RATE, np.shape(audio)[-1]] if why == "" else [3 * RATE]
        assert record.meta["samples"] == (max if unequal == "pad" else min)(lengths), name


def test_what_is_padded_is_not_active(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    write_track(root / "train/Track00100", tones(1, stems=2, seconds=12.0) | {"S02": tone(4, 4.0)})
    run(root, tmp_path / "out", codec)
    record = next(record for record in shards.open(tmp_path / "out") if record.id == "track00100")
    levels = np.asarray(record["levels"][2], np.float32)
    assert levels.shape == (600,) and (levels[205:] == -120).all() and (levels[:195].max() > -40)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 48000, 88200, 96000, 192000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_rates_and_widths_within_one_song(tmp_path: Path, codec: str, rate: int, subtype: str) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    stems = root / "train/Track00001/stems"
    sf.write(stems / "S00.wav", tone(1, rate=rate), rate, subtype=subtype)
    (stems / "S00.flac").unlink()
    run(root, tmp_path / "out", codec, audio=Audio(resample=True))
    record = shards.open(tmp_path / "out").split("train")[0]
    assert record.meta["stems"] == ["S00", "S01", "S02", "S03"] and record.meta["samples"] == 3 * RATE
    assert record.meta["loudness_lufs"][0] == pytest.approx(-18, abs=0.05)


def test_names_and_links_that_cannot_be_used(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    stems = root / "train/Track00001/stems"
    (stems / "S08.flac").symlink_to(tmp_path / "gone.flac")
    bad = bytes(stems) + b"/S\xff.flac"
    with open(bad, "wb") as file:
        file.write((stems / "S00.flac").read_bytes())
    run(root, tmp_path / "out", codec, max_bad_fraction=0.2)
    ledger = pd.read_parquet(tmp_path / "out/ledger.parquet").set_index("path")["reason"]
    assert ledger["train/Track00001/stems/S08.flac"] == "missing_audio"
    assert ledger["train/Track00001/stems/S\\udcff.flac"] == "bad_name"
