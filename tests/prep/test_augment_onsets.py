"""Onsets within 5 ms of where the factor puts them, of sounds in which others ring on, and of rendered instruments."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from prep.compose import compose
from prep.midi import Song, read_song
from prep.render import default_soundfont
from prep.stages.augment import Augmentation, augment
from tests.bench.onsets import beginning, measure
from tests.prep.test_augment_timing import MOST_S, RATE, WAYS, bass, hat, kick, onsets

PLACES = np.rint((0.2 + 0.4 * np.arange(14) + 0.03 * (np.arange(14) % 3)) * RATE).astype(int)


def picked(number: int) -> np.ndarray:
    """A low note that rings for a second, through the next ones, with the tick of its pick."""
    sound = bass(number)
    return sound + 0.1 * np.random.default_rng(number).standard_normal(len(sound)) * np.exp(
        -np.arange(len(sound)) / 130
    )


def softly_hit(number: int) -> np.ndarray:
    """A hat 10 dB below the drum that it follows 60 ms later."""
    both = kick(number)
    both[round(0.06 * RATE) :][: len(hat(number))] += hat(number)
    return both


def sharp(audio: np.ndarray) -> np.ndarray:
    """Without strings and drums."""
    filtered: np.ndarray = signal.sosfiltfilt(signal.butter(4, 3000, "high", fs=RATE, output="sos"), audio)
    return filtered


@pytest.mark.parametrize(("make", "delay_s"), [(picked, 0.0), (softly_hit, 0.06)])
def test_onsets_under_what_rings_lie_where_the_factor_puts_them(make, delay_s: float) -> None:
    audio = np.zeros(7 * RATE)
    for number, place in enumerate(PLACES):
        sound = make(number)
        audio[place : place + len(sound)] += sound
    audio = (0.5 * audio / np.abs(audio).max()).astype(np.float32)
    places = PLACES + round(delay_s * RATE)
    before = onsets(sharp(audio), places)
    assert np.abs(before - places).max() < 0.003 * RATE  # the detector itself
    for speed, semitones in WAYS:
        out = augment(audio[None], RATE, Augmentation(speed, semitones), False)[0]
        off_s = (onsets(sharp(out), before / speed) - before / speed) / RATE
        assert np.abs(off_s).max() < MOST_S, (speed, semitones, off_s)


@pytest.mark.usefixtures("fluidsynth")
def test_onsets_of_rendered_instruments_lie_where_the_factor_puts_them(tmp_path: Path) -> None:
    (path,) = compose(tmp_path, 1, seed=3, short=True)
    song = read_song(path)
    assert isinstance(song, Song)
    found: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
    measure(beginning(song, 8.0), default_soundfont(), found, [(0.8, 0), (1.2, 0)])
    for name in ("Drums", "Bass", "Guitar"):
        off_ms = np.concatenate([lags for _, lags in found[name]])
        assert len(off_ms) > 0.8 * sum(number for number, _ in found[name]) > 15
        assert np.abs(off_ms).max() < 1e3 * MOST_S, (name, off_ms)
