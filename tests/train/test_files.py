from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.train.made import HOP, RATE
from tests.train.test_live import CODEC, parallel, perform, trained, tune
from train.errors import AudioError
from train.files import measure, play
from train.live import Performance, Player

BASS = Player.of(CODEC, trained(), "Bass")


def written(tmp: Path, audio: np.ndarray, rate: int = RATE) -> Path:
    path = tmp / "mix.wav"
    soundfile.write(path, audio.T, rate, subtype="FLOAT")
    return path


def played(
    tmp: Path, audio: np.ndarray, rate: int = RATE, lufs: float | None = -18.0
) -> tuple[np.ndarray, Performance, list[str]]:
    performance, notes = play(BASS, written(tmp, audio, rate), tmp / "new" / "out.wav", 3, lufs)
    info = soundfile.info(tmp / "new" / "out.wav")
    assert info.subtype == "PCM_16" and info.samplerate == RATE
    return soundfile.read(tmp / "new" / "out.wav", always_2d=True)[0].T, performance, notes


def test_a_file_is_answered_as_its_samples_are(tmp_path: Path) -> None:
    mix = tune(30.7)  # three of the blocks that are read
    found, performance, notes = played(tmp_path, mix)
    assert found.shape == mix.shape and performance.latency.seconds.shape == (31, 3)
    np.testing.assert_allclose(found, parallel(trained(), mix, 3, 1), atol=1e-4)
    assert np.abs(found).max() > 1e-2 and notes == ["the mix was heard as it is, at -18.0 LUFS"]


def test_a_file_is_brought_to_the_loudness_of_training(tmp_path: Path) -> None:
    mix = 0.1 * tune(20)
    lufs = measure(written(tmp_path, mix), CODEC.identity).lufs
    found, _, (note,) = played(tmp_path, mix, lufs=None)
    assert lufs < -30 and note.startswith(f"the mix was taken to be at {lufs:.1f} LUFS and heard +")
    np.testing.assert_allclose(found, perform(trained(), mix, seed=3, gain_db=-18 - lufs)[0], atol=1e-4)
    announced, _, (told,) = played(tmp_path, mix, lufs=-9.0)
    assert told == "the mix was taken to be at -9.0 LUFS and heard -9.0 dB louder, at -18 as in training"
    np.testing.assert_allclose(announced, perform(trained(), mix, seed=3, gain_db=-9.0)[0], atol=1e-4)


def test_files_of_another_rate_or_width_are_fitted_and_that_is_said(tmp_path: Path) -> None:
    mono = tune(channels=1)
    found, _, notes = played(tmp_path, mono)
    assert notes[0] == "the mix's 1 channels were averaged to one, on all 2 of the codec's"
    np.testing.assert_allclose(found, played(tmp_path, np.repeat(mono, 2, axis=0))[0], atol=1e-4)
    wide, _, notes = played(tmp_path, tune(channels=6, rate=22050), rate=22050)
    assert wide.shape[1] == pytest.approx(tune().shape[1], abs=2)
    assert notes[0] == "the mix was resampled from 22050 Hz to the codec's 44100 Hz"
    assert notes[1].startswith("the mix's 6 channels were averaged")


def test_silence_is_played_along_with_as_it_is(tmp_path: Path) -> None:
    found, _, (note,) = played(tmp_path, np.zeros((2, 3 * HOP)), lufs=None)
    assert found.shape[1] == 3 * HOP and note == "the mix was heard as it is, at -inf LUFS"


def broken(kind: str, tmp: Path) -> Path:
    path = tmp / "mix.wav"
    contents: dict[str, Any] = {"missing": None, "text": b"not a sound", "cut": b"RIFF\x00"}
    if kind == "short":  # at 44.1 kHz it is no sample
        soundfile.write(path, np.zeros((1, 2)), 96000)
    elif kind in ("empty", "nan"):
        soundfile.write(path, np.zeros((0, 2)) if kind == "empty" else [[0.0, np.nan], [np.inf, 0]], RATE, "FLOAT")
    elif contents[kind] is not None:
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"mix\.wav is not a file; give --mix a WAV or FLAC file"),
        ("text", r"mix\.wav cannot be read as audio \(.*\); give"),
        ("cut", r"mix\.wav cannot be read as audio \(.*\); give"),
        ("empty", "the mix is empty; give one with sound in it"),
        ("short", "the mix is empty; give one with sound in it"),
        ("nan", "the mix holds 2 samples of NaN or infinity; export it again"),
    ],
)
def test_files_that_are_nothing_to_play_with_are_told(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        play(BASS, broken(kind, tmp_path), tmp_path / "out.wav")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.wav").exists()


def test_the_mix_itself_is_not_written_over(tmp_path: Path) -> None:
    mix = written(tmp_path, tune(3))
    before = mix.read_bytes()
    (tmp_path / "link.wav").symlink_to(mix)
    for out in (mix, tmp_path / "link.wav"):
        with pytest.raises(AudioError, match=r"\.wav is the mix itself, and would be lost; choose another --out"):
            play(BASS, mix, out)
    assert mix.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match=r"cannot be written \(.*\); choose another --out"):
        play(BASS, written(tmp_path, tune(1)), tmp_path / "file" / "out.wav")
