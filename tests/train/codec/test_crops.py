"""What is drawn for training, and each effect on signals whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile as sf

from train.codec import crops, effects
from train.codec.crops import draw_crop
from train.codec.songs import Song, digest_of, find_songs

RATE = 44100


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sine(hertz: float, samples: int = RATE) -> np.ndarray:
    return np.stack([np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)] * 2).astype(np.float32)


def loudest_hertz(audio: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(audio[0] * np.hanning(audio.shape[1])))
    return float(power.argmax() * RATE / audio.shape[1])


@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    """Two songs, of 5 and 3 stems, each stem a tone of its own; the mix is noise."""
    for number, stems in enumerate((5, 3)):
        folder = tmp_path / f"Track{number}"
        (folder / "stems").mkdir(parents=True)
        for stem in range(stems):
            sf.write(folder / "stems" / f"S{stem:02d}.flac", 0.1 * sine(500 * (1 + stem + 5 * number)).T, RATE)
        sf.write(folder / "mix.flac", 0.1 * rng().standard_normal((RATE, 2)), RATE)
    return find_songs(tmp_path, RATE)


def test_stems_come_from_one_song_and_then_from_another(songs: list[Song]) -> None:
    """Peaks at multiples of 500 Hz tell which stems are in."""
    counts = set()
    for seed in range(40):
        audio = crops._sum_of_stems([songs[1]], songs[0], RATE, rng(seed))
        level = np.abs(np.fft.rfft(audio.sum(0)))
        heard = {stem for stem in range(8) if level[500 * (stem + 1)] > 100}
        assert len(heard) >= 5 or heard <= set(range(5))  # the other song's only once its own are all in
        counts.add(len(heard))
    assert counts == {1, 2, 3, 4, 5, 6, 7, 8}


def test_crops_are_level_finite_and_stereo_or_mono(songs: list[Song]) -> None:
    drawn = [draw_crop(songs, 20000, 0, i) for i in range(60)]
    level = [20 * math.log10(float(np.sqrt(np.mean(x**2)))) for x in drawn]
    assert all(np.isfinite(x).all() and x.shape == (2, 20000) and x.dtype == np.float32 for x in drawn)
    assert min(level) > -36.01 and max(level) < -11.99 and max(level) - min(level) > 15
    mono = sum(np.array_equal(x[0], x[1]) for x in drawn)
    assert 5 < mono < 40


def test_a_song_shorter_than_the_crop_is_padded(songs: list[Song]) -> None:
    assert all(draw_crop(songs, 2 * RATE, 0, i).shape == (2, 2 * RATE) for i in range(10))


def test_speed_moves_the_pitch_with_it() -> None:
    for ratio in (0.8, 1.25):
        out = effects.change_speed(sine(1000, math.ceil(RATE * ratio)), ratio, RATE, RATE)
        assert out.shape == (2, RATE) and loudest_hertz(out) == pytest.approx(1000 * ratio, abs=2)


def test_filters_are_stable_and_reach_what_they_say() -> None:
    """Shelves and bells stay within 9 dB but for the shelves' overshoot; low-passes keep 0 Hz and take the top."""
    low_passes = 0
    for seed in range(200):
        section = np.array(effects._biquad(rng(seed), RATE))
        assert np.abs(np.roots(section[3:])).max() < 1
        response = scipy.signal.sosfreqz(section[None], 512)[1]
        db = 20 * np.log10(np.abs(response) + 1e-9)
        if db[-1] < -20:
            low_passes += 1
            assert db[0] == pytest.approx(0, abs=0.01)
        assert db.max() < 13 and (db[-1] < -20 or db.min() > -13)
    assert 25 < low_passes < 80


def test_a_shelf_moves_one_side_and_a_bell_the_middle() -> None:
    """At 0 Hz and at Nyquist, by the coefficients: a bell is 0 dB at both, a shelf at one of them."""
    kinds = {"one": 0, "both": 0}
    for seed in range(100):
        b, a = np.split(np.array(effects._biquad(rng(seed), RATE)), 2)
        low = abs(20 * math.log10(abs(b.sum() / a.sum()) + 1e-9))
        high = abs(20 * math.log10(abs((b * [1, -1, 1]).sum() / (a * [1, -1, 1]).sum()) + 1e-9))
        if high > 60:  # a low-pass
            continue
        assert min(low, high) < 1e-6 and max(low, high) < 9.001
        kinds["both" if max(low, high) < 1e-6 else "one"] += 1
    assert kinds["one"] > 20 and kinds["both"] > 10


def test_clipping_keeps_the_peak_and_adds_odd_harmonics() -> None:
    out = effects.soft_clip(sine(1000), rng(3))
    level = np.abs(np.fft.rfft(out[0]))
    assert np.abs(out).max() == pytest.approx(1, abs=1e-3)
    assert level[3000] > 100 * level[2000] and level[1000] > level[3000]
    assert not effects.soft_clip(np.zeros((2, 10), np.float32), rng()).any()


def test_a_room_rings_on_after_the_sound_and_not_before() -> None:
    click = np.zeros((2, RATE), np.float32)
    click[:, 1000] = 1
    out = effects.reverberate(click, rng(1), RATE)
    assert np.abs(out[:, :1000]).max() < 1e-6
    thirds = np.split(out[:, 1001:4001], 3, axis=1)
    energies = [float(np.sum(x**2)) for x in thirds]
    assert energies[0] > energies[1] > energies[2] > 0
    assert 0.01 - 1e-3 < float(np.sum(out[0, 1001:] ** 2)) < 0.4


def test_width_and_place_keep_what_they_should() -> None:
    audio = rng().standard_normal((2, 1000)).astype(np.float32)
    wide = effects.widen(audio, rng(0))
    np.testing.assert_allclose(wide.sum(0), audio.sum(0), atol=1e-5)
    assert not np.allclose(wide, audio)
    placed = effects.pan(np.ones((2, 10), np.float32), rng(1))
    np.testing.assert_allclose((placed**2).sum(0), 2, rtol=1e-5)


def test_the_digest_knows_songs_not_places(songs: list[Song], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for folder in ("Track0", "Track1"):
        (tmp_path / folder).rename(moved / folder)
    assert digest_of(find_songs(moved, RATE), moved) == digest_of(songs, tmp_path)
    longer = [dataclasses.replace(songs[0], samples=songs[0].samples + 1), songs[1]]
    assert digest_of(longer, tmp_path) != digest_of(songs, tmp_path)
