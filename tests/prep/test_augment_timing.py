"""Onsets within 5 ms of where the factor puts them, and pitches within 5 cents, of sounds whose places are known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from prep.stages.augment import Augmentation, augment

RATE = 44100
MOST_S = 0.005
WAYS = [(0.8, 0), (0.93, 0), (1.07, 0), (1.2, 0), (1.0, 4), (1.0, -4), (0.8, 4), (0.8, -4), (1.2, 4), (1.2, -4)]

Make = Callable[[int], np.ndarray]


def shape(seconds: float, rise_s: float, fall_s: float, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    time = np.arange(round(seconds * rate)) / rate
    return time, np.minimum(time / rise_s, 1) * np.exp(-time / fall_s)


def click(number: int) -> np.ndarray:
    return np.ones(1)


def hat(number: int) -> np.ndarray:
    time, envelope = shape(0.1, 0.0005, 0.02)
    return 0.3 * np.random.default_rng(number).standard_normal(len(time)) * envelope


def snare(number: int) -> np.ndarray:
    time, envelope = shape(0.25, 0.001, 0.06)
    return (0.2 * np.random.default_rng(number).standard_normal(len(time)) + np.sin(2 * np.pi * 190 * time)) * envelope


def kick(number: int) -> np.ndarray:
    time, envelope = shape(0.3, 0.002, 0.1)
    return np.sin(2 * np.pi * np.cumsum(50 + 150 * np.exp(-time / 0.03)) / RATE) * envelope


def kit(number: int) -> np.ndarray:
    return (kick, hat, snare, hat)[number % 4](number)


def note(hz: float, partials: int, fall_s: float, rise_s: float) -> np.ndarray:
    time, envelope = shape(1.0, rise_s, fall_s)
    partial = np.arange(1, partials + 1)[:, None]
    return (np.sin(2 * np.pi * hz * partial * time) / partial * np.exp(-time * partial)).sum(axis=0) * envelope


def pluck(number: int) -> np.ndarray:
    return note(110 * 2 ** (number * 7 % 24 / 12), 12, 0.5, 0.002)


def bass(number: int) -> np.ndarray:
    return note(41.2 * 2 ** (number * 5 % 12 / 12), 8, 0.4, 0.005)


def held(number: int) -> np.ndarray:
    """A bass note that is struck again twice, each time as loud as it was."""
    return note(41.2 * 2 ** (number // 3 * 5 % 12 / 12), 8, 30.0, 0.005)


def chord(number: int) -> np.ndarray:
    return sum((note(131 * 2 ** ((number * 5 + step) % 24 / 12), 8, 0.6, 0.004) for step in (0, 4, 7)), np.zeros(RATE))


SOUNDS: dict[str, tuple[Make, float]] = {
    "click": (click, 0.13), "hat": (hat, 0.12), "snare": (snare, 0.2), "kick": (kick, 0.3), "kit": (kit, 0.15),
    "pluck": (pluck, 0.3), "bass": (bass, 0.4), "held": (held, 0.4), "chord": (chord, 0.5),
}  # fmt: skip


def played(make: Make, gap_s: float, seconds: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Sounds at known, uneven places, each damped over 20 ms and silent for 20 ms before the next, at full scale."""
    rng = np.random.default_rng(7)
    places = (0.2 + np.cumsum(gap_s * rng.uniform(0.8, 1.3, int(seconds / gap_s / 1.1)))) * RATE
    places = places[places < (seconds - 0.3) * RATE].astype(int)
    audio = np.zeros(round(seconds * RATE))
    for number, (place, until) in enumerate(zip(places, [*places[1:], len(audio)], strict=True)):
        sound = make(number)[: until - place - round(0.02 * RATE)]
        damped = min(len(sound), round(0.02 * RATE))
        sound[len(sound) - damped :] *= np.linspace(1, 0, damped)[: len(sound)] if len(sound) > 1 else 1
        audio[place : place + len(sound)] += sound
    return (audio / np.abs(audio).max()).astype(np.float32), places


def onsets(audio: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Where the level first passes a quarter of the peak near each place, coming from its lowest before that peak."""
    window = signal.windows.hann(round(0.004 * RATE) | 1)
    level = np.sqrt(np.maximum(signal.fftconvolve(np.square(audio, dtype=np.float64), window, "same"), 0))
    before, early, after = (round(seconds * RATE) for seconds in (0.03, 0.01, 0.04))
    found = []
    for place in near.astype(int):
        peak = place - early + int(np.argmax(level[place - early : place + after]))
        start = min(place, peak) - before
        lowest = start + int(np.argmin(level[start:peak]))
        found.append(lowest + int(np.argmax(level[lowest : peak + 1] > level[peak] / 4)))
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "drums"),
    [(name, False) for name in SOUNDS if name != "kit"]
    + [(name, True) for name in ("click", "hat", "snare", "kick", "kit")],
)
def test_onsets_lie_where_the_factor_puts_them(name: str, drums: bool) -> None:
    audio, places = played(*SOUNDS[name])
    before = onsets(audio, places)
    assert len(before) >= 8 and np.abs(before - places).max() < 0.006 * RATE  # the detector itself
    for speed, semitones in WAYS:
        after = augment(audio[None], RATE, Augmentation(speed, semitones, pitch_drums=True), drums)[0]
        off_s = (onsets(after, before / speed) - before / speed) / RATE
        assert np.abs(off_s).max() < MOST_S, (speed, semitones, off_s)


@pytest.mark.parametrize("speed", [0.8, 1.2])
def test_a_roll_keeps_each_of_its_hits(speed: float) -> None:
    audio, places = played(hat, 0.06, 3.0)
    off_s = (onsets(augment(audio[None], RATE, Augmentation(speed), True)[0], places / speed) - places / speed) / RATE
    assert len(places) > 35 and np.abs(off_s).max() < MOST_S


@pytest.mark.parametrize("speed", [0.83, 1.17])
def test_nothing_drifts_in_ten_minutes(speed: float) -> None:
    rate = 8000
    places = np.arange(2 * rate, 600 * rate, 10 * rate)
    audio = np.zeros((1, 600 * rate), np.float32)
    time, envelope = shape(0.5, 0.002, 0.1, rate)
    for place in places:
        audio[0, place : place + len(time)] = np.sin(2 * np.pi * 440 * time) * envelope
    out = np.abs(augment(audio, rate, Augmentation(speed), False)[0])
    for place in places / speed:
        start = int(place) - rate
        first = start + int(np.argmax(out[start : start + 2 * rate] > 0.1))
        assert abs(first - place) < 0.002 * rate


def dominant_hz(audio: np.ndarray) -> float:
    inner = audio[RATE // 2 : -RATE // 2]
    size = 1 << 21
    return float(np.argmax(np.abs(np.fft.rfft(inner * signal.windows.blackmanharris(len(inner)), size))) * RATE / size)


@pytest.mark.parametrize("hz", [41.2, 82.4, 220.0, 1000.0, 4000.0])
@pytest.mark.parametrize("partials", [1, 10])
def test_pitches_lie_within_5_cents(hz: float, partials: int) -> None:
    time = np.arange(5 * RATE // 2) / RATE
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k**1.5 for k in range(1, partials + 1) if hz * k < 16000)
    audio = np.float32(0.3) * np.atleast_2d(tone).astype(np.float32)
    for speed, semitones in WAYS:
        out = augment(audio, RATE, Augmentation(speed, semitones), False)[0]
        cents = 1200 * np.log2(dominant_hz(out) / dominant_hz(audio[0])) - 100 * semitones
        assert abs(cents) < 5, (speed, semitones, cents)


def test_drums_are_pitched_only_if_asked() -> None:
    time = np.arange(3 * RATE) / RATE
    audio = (0.5 * np.sin(2 * np.pi * 500 * time))[None].astype(np.float32)
    np.testing.assert_array_equal(augment(audio, RATE, Augmentation(semitones=3.0), True), audio)
    sped = augment(audio, RATE, Augmentation(0.9, 3.0), True)
    assert dominant_hz(sped[0]) == pytest.approx(500, abs=0.5) and sped.shape[1] > audio.shape[1]
    asked = augment(audio, RATE, Augmentation(0.9, 3.0, pitch_drums=True), True)
    assert dominant_hz(asked[0]) == pytest.approx(500 * 2 ** (3 / 12), abs=0.5)


def test_equal_channels_stay_equal_and_levels_stay() -> None:
    audio, _ = played(pluck, 0.3)
    out = augment(np.stack([audio, audio]), RATE, Augmentation(0.87, 2.0), False)
    np.testing.assert_array_equal(out[0], out[1])
    assert abs(20 * np.log10(np.sqrt(np.mean(out**2) / np.mean(audio**2)))) < 0.5
