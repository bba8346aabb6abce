"""What is scored: the middle of mixes with their notes, or plain files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile as sf
import torch
import yaml

from train.codec.corpora import read_corpus
from train.errors import TrainError

RATE = 44100


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """4 s of a ramp, and a note or a drum each half second."""
    folder = tmp_path / "held" / "test" / "Track00001"
    folder.mkdir(parents=True)
    sf.write(folder / "mix.flac", np.linspace(0, 0.5, 4 * RATE), RATE)
    midi = pretty_midi.PrettyMIDI()
    for is_drum in (False, True):
        part = pretty_midi.Instrument(0, is_drum)
        part.notes = [pretty_midi.Note(90, 60 + k, k / 2, k / 2 + 0.2) for k in range(int(is_drum), 8, 2)]
        midi.instruments.append(part)
    midi.write(str(folder / "all_src.mid"))
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": {"S00": {"plugin_name": "TimGM6mb.sf2"}}}))
    return tmp_path / "held"


def test_the_middle_and_its_notes(rendered: Path) -> None:
    corpus = read_corpus(rendered, RATE, 4096, 2.0)
    assert (corpus.label, corpus.soundfont) == ("held", "TimGM6mb.sf2")
    (clip,) = corpus.clips
    assert clip.name == "Track00001" and clip.audio.shape == (2, 21 * 4096)
    assert float(clip.audio[0, 0]) == pytest.approx(0.5 / 4, abs=1e-3)  # 1 s from the start
    assert clip.notes is not None
    np.testing.assert_allclose(clip.notes.onsets_s, np.arange(6) / 2, atol=1e-3)
    assert clip.notes.pitches.tolist() == [62, -1, 64, -1, 66, -1]


def test_a_mix_shorter_than_asked_is_taken_whole(rendered: Path) -> None:
    (clip,) = read_corpus(rendered, RATE, 4096, 100.0).clips
    assert clip.audio.shape[1] == 4 * RATE // 4096 * 4096 and float(clip.audio[0, 0]) == 0


def test_plain_files_at_any_rate(tmp_path: Path) -> None:
    for rate in (RATE, 48000):
        sf.write(tmp_path / f"at_{rate}.wav", np.sin(2 * np.pi * 441 * np.arange(rate) / rate), rate)
    folder = read_corpus(tmp_path, RATE, 4096, 5.0)
    assert (folder.label, folder.soundfont) == (tmp_path.name, "")
    assert [(c.name, c.notes) for c in folder.clips] == [("at_44100", None), ("at_48000", None)]
    torch.testing.assert_close(folder.clips[0].audio, folder.clips[1].audio, atol=0.02, rtol=0)
    single = read_corpus(tmp_path / "at_48000.wav", RATE, 4096, 0.5)
    assert single.label == "at_48000" and single.clips[0].audio.shape == (2, 5 * 4096)


def test_what_cannot_be_scored_is_told(tmp_path: Path) -> None:
    for name, audio, message in (
        ("short", np.zeros(100), "shorter than a frame"),
        ("surround", np.zeros((RATE, 6)), "has 6 channels"),
    ):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "mix.flac", audio, RATE)
        with pytest.raises(TrainError, match=message):
            read_corpus(tmp_path / name, RATE, 4096, 1.0)
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(TrainError, match=r"text.wav cannot be read"):
        read_corpus(tmp_path / "text.wav", RATE, 4096, 1.0)
    with pytest.raises(TrainError, match=r"gone does not exist. --data is"):
        read_corpus(tmp_path / "gone", RATE, 4096, 1.0)
