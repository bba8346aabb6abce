"""Reading: exact samples, or the reason why not."""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from prep.audio import content_digest, expand, read_audio, resample
from prep.errors import Reject

RATE = 44100


def noise(channels: int = 1, samples: int = 30000) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal((channels, samples))).astype(np.float32)


def reason(path: Path) -> str:
    read = read_audio(path)
    assert isinstance(read, Reject), "a bad file was read"
    assert "\n" not in read.detail and str(path.parent) not in read.detail
    return read.reason


@pytest.mark.parametrize("subtype, step", [("PCM_S8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23)])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_flac_gives_its_integers_exactly(tmp_path: Path, subtype: str, step: float, channels: int) -> None:
    path = tmp_path / "a.flac"
    integers = np.round(noise(channels, 5000) / step)
    soundfile.write(path, (integers * step).T.astype(np.float64), RATE, subtype=subtype)
    audio, rate = read_audio(path)
    assert rate == RATE and audio.dtype == np.float32 and audio.flags.c_contiguous
    np.testing.assert_array_equal(audio, (integers * step).astype(np.float32))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav_keeps_channels_and_values(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(2).T, 8000, subtype=subtype)
    audio, rate = read_audio(path)
    assert rate == 8000 and audio.shape == (2, 30000)
    np.testing.assert_allclose(audio, noise(2), atol=2**-15)


def test_more_than_one_block_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", noise().T, RATE, subtype="FLOAT")
    for block in (7000, 15000, 30000):
        monkeypatch.setattr("prep.audio._BLOCK", block)
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav")[0], noise())


@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_truncated_files_are_noticed(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    soundfile.write(path, noise().T, RATE, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert reason(path) in {"truncated", "corrupt"}


def test_flac_that_decodes_to_other_samples_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise().T, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    assert reason(path) == "corrupt"
    # an encoder that did not compute the MD5 leaves zeros
    content[26:42] = bytes(16)
    path.write_bytes(content)
    assert isinstance(read_audio(path), tuple)


def test_flac_of_open_length_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise().T, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    read = read_audio(path)
    assert isinstance(read, Reject) and "does not say how long" in read.detail


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9mos")
    folder.mkdir()
    with (folder / "a.flac").open("wb") as file:
        soundfile.write(file, noise()[0], RATE, format="FLAC")
    assert read_audio(folder / "a.flac")[0].shape == (1, 30000)


def test_wav_written_to_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise().T, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert read_audio(path)[0].shape == (1, 30000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_rejects_the_file(tmp_path: Path, value: float) -> None:
    audio = noise()
    audio[0, 12345] = value
    soundfile.write(tmp_path / "a.wav", audio.T, RATE, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "not_finite"


def test_a_double_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, 1e300]), RATE, subtype="DOUBLE")
    assert reason(tmp_path / "a.wav") == "not_finite"


def test_other_bad_files(tmp_path: Path) -> None:
    (tmp_path / "none.wav").touch()
    (tmp_path / "text.wav").write_text("not audio at all")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "header.wav", np.zeros((0, 1), np.float32), RATE)
    soundfile.write(tmp_path / "low.wav", np.zeros(100, np.float32), 4000)
    soundfile.write(tmp_path / "loud.wav", np.full(10, 1e7, np.float32), RATE, subtype="FLOAT")
    names = ("none", "text", "folder", "header", "low", "loud", "absent")
    assert [reason(tmp_path / f"{name}.wav") for name in names] == [
        "empty", "corrupt", "unreadable", "empty", "low_rate", "out_of_range", "missing_audio",
    ]  # fmt: skip


@pytest.mark.parametrize("to_hz", [16000, 44100, 48000])
def test_resampling_keeps_a_tone_and_rounds_its_length_up(to_hz: int) -> None:
    rate_hz = 22050
    tone = np.sin(2 * np.pi * 997 * np.arange(22051) / rate_hz, dtype=np.float64).astype(np.float32)[None]
    resampled = resample(tone, rate_hz, to_hz)
    assert resampled.dtype == np.float32 and resampled.shape == (1, -(-22051 * to_hz // rate_hz))
    expected = np.sin(2 * np.pi * 997 * np.arange(resampled.shape[1]) / to_hz)
    middle = slice(2000, -2000)
    np.testing.assert_allclose(resampled[0, middle], expected[middle], atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 10])
def test_resampling_a_few_samples_is_defined(samples: int) -> None:
    assert np.isfinite(resample(np.ones((2, samples), np.float32), 16000, 44100)).all()


def test_expand() -> None:
    mono, stereo = noise(1), noise(2)
    assert expand(stereo, 2) is stereo
    np.testing.assert_array_equal(expand(mono, 2), np.vstack([mono, mono]))
    np.testing.assert_allclose(expand(stereo, 1), stereo.mean(axis=0)[None], atol=1e-7)
    assert expand(noise(6), 2) == Reject("channels", "6 channels cannot become 2")


def test_content_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert content_digest(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
