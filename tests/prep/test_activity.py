"""Levels against IEC 61672-1's table of weights, and their frames against their definition."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import signal

from prep.stages.activity import active, has_valid_window, is_silent, levels_db
from prep.stages.weighting import a_weighting, weighted_energies

# IEC 61672-1:2013 table 3: nominal frequency in Hz, A-weighting in dB, class 1 tolerance (over, under) in dB
TABLE = [
    (25, -44.7, 2.0, 1.5), (31.5, -39.4, 1.5, 1.5), (40, -34.6, 1.0, 1.0), (50, -30.2, 1.0, 1.0),
    (63, -26.2, 1.0, 1.0), (80, -22.5, 1.0, 1.0), (100, -19.1, 1.0, 1.0), (125, -16.1, 1.0, 1.0),
    (160, -13.4, 1.0, 1.0), (200, -10.9, 1.0, 1.0), (250, -8.6, 1.0, 1.0), (315, -6.6, 1.0, 1.0),
    (400, -4.8, 1.0, 1.0), (500, -3.2, 1.0, 1.0), (630, -1.9, 1.0, 1.0), (800, -0.8, 1.0, 1.0),
    (1000, 0.0, 0.7, 0.7), (1250, 0.6, 1.0, 1.0), (1600, 1.0, 1.0, 1.0), (2000, 1.2, 1.0, 1.0),
    (2500, 1.3, 1.0, 1.0), (3150, 1.2, 1.0, 1.0), (4000, 1.0, 1.0, 1.0), (5000, 0.5, 1.5, 1.5),
    (6300, -0.1, 1.5, 2.0), (8000, -1.1, 1.5, 2.5), (10000, -2.5, 2.0, 3.0), (12500, -4.3, 2.0, 5.0),
    (16000, -6.6, 2.5, 16.0), (20000, -9.3, 3.0, np.inf),
]  # fmt: skip
# The table rounds to 0.1 dB; the filter is this close to the curve, far inside class 1
FILTER_DB = 0.2


def exact_hz(nominal: float) -> float:
    """The exact third-octave frequency that a nominal one stands for."""
    return 1000 * 10 ** (round(10 * np.log10(nominal / 1000)) / 10)


def tone(hz: float, rate: int, seconds: float = 2.0, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)[None]


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("nominal, weight, over, under", TABLE)
def test_tones_weigh_what_the_standard_says(
    rate: int, nominal: float, weight: float, over: float, under: float
) -> None:
    hz = exact_hz(nominal)
    # 1.6 s in the steady state: power averages over many periods of the lowest tone
    measured = 10 * np.log10(np.mean(10 ** (levels_db(tone(hz, rate), rate)[20:] / 10)))
    deviation = measured + 10 * np.log10(2) - weight
    assert -under <= deviation <= over
    assert abs(deviation) < (FILTER_DB if nominal <= 16000 else 0.4)


@pytest.mark.parametrize("rate", [16000, 22050, 32000, 96000, 192000])
def test_other_rates_hold_class_1_up_to_nine_tenths_of_nyquist(rate: int) -> None:
    rows = [row for row in TABLE if exact_hz(row[0]) < 0.45 * rate and row[0] <= 16000]
    _, response = signal.freqz_sos(a_weighting(rate), worN=[exact_hz(row[0]) for row in rows], fs=rate)
    for (_, weight, over, under), gain in zip(rows, np.abs(response), strict=True):
        assert -under <= 20 * np.log10(gain) - weight <= over


@pytest.mark.parametrize("rate, samples, frames", [(44100, 44100, 50), (44100, 44101, 51), (44100, 1, 1), (44100, 0, 0),
                                                   (11025, 221, 2), (11025, 220, 1), (22050, 441, 1)])  # fmt: skip
def test_number_of_frames(rate: int, samples: int, frames: int) -> None:
    levels = levels_db(np.ones((1, samples), np.float32), rate)
    assert levels.shape == (frames,) and levels.dtype == np.float32


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
def test_frames_are_mean_squares_of_the_weighted_signal_between_their_edges(rate: int) -> None:
    audio = np.random.default_rng(0).standard_normal((2, 2 * rate + 37)).astype(np.float32)
    weighted = signal.sosfilt(a_weighting(rate).copy(), audio.astype(np.float64))
    edges = [k * rate // 50 for k in range(101)] + [2 * rate + 37]
    expected = [10 * np.log10(np.mean(weighted[:, start:end] ** 2)) for start, end in pairwise(edges)]
    np.testing.assert_allclose(levels_db(audio, rate), expected, atol=1e-4)


def test_equal_channels_are_measured_once_and_alike() -> None:
    mono = np.random.default_rng(0).standard_normal((1, 44100)).astype(np.float32)
    np.testing.assert_array_equal(levels_db(np.vstack([mono, mono]), 44100), levels_db(mono, 44100))
    # power mean: one silent channel of two costs 3.01 dB
    half = levels_db(np.vstack([mono, 0 * mono]), 44100)
    np.testing.assert_allclose(half, levels_db(mono, 44100) - 10 * np.log10(2), atol=1e-4)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, 10000)) * np.repeat(rng.integers(0, 2, 100), 100)
    edges = np.arange(0, 10001, 1000)
    whole = weighted_energies(audio, a_weighting(44100), edges)
    for chunk in (1, 1000, 3333, 10**6):
        monkeypatch.setattr("prep.stages.weighting._CHUNK_SAMPLES", chunk)
        np.testing.assert_allclose(weighted_energies(audio, a_weighting(44100), edges), whole, rtol=1e-12, atol=1e-20)


def test_silence_and_what_follows_a_sound() -> None:
    assert (levels_db(np.zeros((2, 44100), np.float32), 44100) == -120).all()
    burst = np.zeros((1, 441000), np.float32)
    burst[0, :4410] = np.random.default_rng(0).standard_normal(4410)
    levels = levels_db(burst, 44100)
    assert (levels[:5] > -20).all() and (levels[100:] == -120).all()


@pytest.mark.parametrize("value", [1e-42, 1e-20, 1e20, 3e38])
def test_odd_but_finite_values_give_finite_levels(value: float) -> None:
    audio = np.random.default_rng(0).choice([-1, 1], (1, 8820)).astype(np.float32) * np.float32(value)
    levels = levels_db(audio, 44100)
    assert np.isfinite(levels).all() and (levels >= -120).all()


def test_constant_offset_is_not_activity() -> None:
    levels = levels_db(np.full((1, 88200), 0.5, np.float32), 44100)
    assert is_silent(levels[50:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    audio = np.zeros((1, 44100), np.float32)
    audio[0, 30000] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        levels_db(audio, 44100)


def test_wrong_shape_and_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="channels, samples"):
        levels_db(np.zeros(44100, np.float32), 44100)
    with pytest.raises(ValueError, match="4000 Hz is too low"):
        levels_db(np.zeros((1, 4000), np.float32), 4000)


def test_active_is_strictly_over_the_threshold() -> None:
    assert active(np.array([-60.0, -59.9, -120.0])).tolist() == [False, True, False]


def test_a_window_needs_half_of_its_frames_active_in_both() -> None:
    half = np.array([True, True, False, False])
    assert has_valid_window(half, 4) and has_valid_window(half, 3) and has_valid_window(half, 100)
    # each is active half of the time, but never together
    assert not has_valid_window(half & half[::-1], 4)
    assert not has_valid_window(np.array([True, False, False, False]), 4)
    assert has_valid_window(np.array([False, False, True, False]), 2)
    assert not has_valid_window(np.zeros(4, np.bool_), 1) and not has_valid_window(np.zeros(0, np.bool_), 1)


@pytest.mark.parametrize("width", [1, 2, 5, 30, 64])
def test_every_window_is_looked_at(width: int) -> None:
    rng = np.random.default_rng(width)
    found = []
    for share in np.linspace(0.05, 0.6, 60):
        both = rng.random(40) < share
        shown = min(width, 40)
        by_hand = any(2 * both[i : i + shown].sum() >= shown for i in range(41 - shown)) and both.any()
        assert has_valid_window(both, width) == by_hand
        found.append(by_hand)
    assert width == 1 or set(found) == {False, True}


def test_silent_is_less_activity_than_asked_for() -> None:
    levels = np.full(100, -100.0)
    assert is_silent(levels) and is_silent(levels[:0])
    levels[:25] = -10.0
    assert not is_silent(levels) and not is_silent(levels, min_active_s=0.5)
    assert is_silent(levels, min_active_s=0.52) and is_silent(levels, threshold_db=-5.0)
