"""Real Slakh MIDI rendered and built, and BabySlakh's layout read and built. Skips where that material is not."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import yaml
from click.testing import CliRunner, Result

import shards
from prep.audio import resample
from prep.cli import main
from tests.prep.made import save_small_codec
from tests.prep.test_slakh import SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared Slakh material is not here")


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def rendered(fluidsynth: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Track00001's MIDI (237 s, 11 stems) rendered with the default SoundFont."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "midi").mkdir()
    shutil.copy(SHARED / "Track00001" / "all_src.mid", folder / "midi" / "Track00001.mid")
    done = call("render", folder / "midi", folder / "corpus", "--workers", 1)
    assert done.exit_code == 0, done.output
    return folder / "corpus"


def test_the_metadata_is_what_slakh_says(rendered: Path) -> None:
    ours = yaml.safe_load((rendered / "train/Track00001/metadata.yaml").read_text())
    theirs = yaml.safe_load((SHARED / "Track00001/metadata.yaml").read_text())
    assert ours["UUID"] == theirs["UUID"]
    fields = ("program_num", "is_drum", "inst_class")
    mine, real = (sorted(tuple(stem[f] for f in fields) for stem in each["stems"].values()) for each in (ours, theirs))
    assert mine == real
    assert ours["overall_gain"] == pytest.approx(theirs["overall_gain"], rel=0.05)


def test_rendered_and_built(rendered: Path, tmp_path: Path) -> None:
    codec = f"codec={save_small_codec(tmp_path)}"
    words = ("build", "--dataset", "slakh", "--root", rendered, "--out", tmp_path / "out", "--set", codec)
    done = call(*words, "--set", "mixing.subsets_per_target=1", "--workers", 1)
    assert done.exit_code == 0, done.output
    record = shards.open(tmp_path / "out")[0]
    assert record.meta["n_stems"] >= 10 and record.meta["n_mixes"] >= 5
    assert {"Guitar", "Percussive", "Piano", "Bass", "Ensemble", "Organ"} <= set(record.meta["instruments"])
    assert np.isfinite(np.asarray(record["mixes"], np.float32)).all()


def test_baby_slakh(rendered: Path, tmp_path: Path) -> None:
    """16 kHz, flat, flags that say "not rendered". Of the excerpt, 2 s long, one stem sounds: it holds no pair."""
    codec = f"codec={save_small_codec(tmp_path)}"
    shutil.copytree(SHARED / "Track00001_baby", tmp_path / "baby" / "Track00001")
    words = ("build", "--dataset", "slakh", "--root", tmp_path / "baby", "--out", tmp_path / "out", "--set", codec)
    refused = call(*words)
    assert refused.exit_code == 1 and "16000 Hz" in refused.output and "audio.resample=true" in refused.output
    silent = call(*words, "--set", "audio.resample=true")
    assert silent.exit_code == 1 and "nothing to build: 9 of 10 files: silent" in silent.output
    found = pd.read_parquet(tmp_path / "out" / "ledger.parquet")
    assert sorted(found["reason"]) == ["silent"] * 9 + ["too_few_stems"]

    # the same folder with sound in its files: two seconds from the middle of the song
    for path in sorted((tmp_path / "baby/Track00001/stems").glob("*.wav")):
        audio, rate = sf.read(rendered / "train/Track00001/stems" / f"{path.stem}.flac", dtype="float32")
        sf.write(path, resample(audio[None, 60 * rate : 62 * rate], rate, 16000)[0], 16000)
    done = call(*words, "--set", "audio.resample=true", "--set", "activity.min_active_s=0.2")
    assert done.exit_code == 0, done.output
    record = shards.open(tmp_path / "out")[0]
    assert record.id == "track00001" and record.meta["licence"] == "CC BY 4.0" and record.meta["samples"] == 88200
    assert record.meta["n_stems"] >= 5
