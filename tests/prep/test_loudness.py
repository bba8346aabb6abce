"""BS.1770's own tones, pyloudnorm as the second opinion, and what must hold for any signal."""

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from prep.stages.loudness import (
    SILENCE_LUFS,
    Policy,
    _factor,
    _phases,
    ceiling_gain_db,
    gain_to_db,
    integrated_lufs,
    stem_gains_db,
    true_peak,
)
from prep.stages.weighting import _HIGH_PASS, _SHELF, k_weighting


def tone(rate: int, seconds: float, amplitude: float = 1.0, hz: float = 997.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate))[None]


def noise(rate: int, seconds: float, channels: int = 2) -> np.ndarray:
    """Noise whose level wanders over 80 dB, so that both gates act."""
    rng = np.random.default_rng(0)
    samples = int(seconds * rate)
    level = 10 ** rng.uniform(-4, 0, samples // (rate // 2) + 1)
    return 0.1 * rng.standard_normal((channels, samples)) * np.repeat(level, rate // 2)[:samples]


@pytest.mark.parametrize("rate", [44100, 48000])
def test_full_scale_tone_of_bs1770(rate: int) -> None:
    mono = tone(rate, 5.0)
    assert integrated_lufs(mono, rate) == pytest.approx(-3.01, abs=0.01)
    assert integrated_lufs(np.vstack([mono, 0 * mono]), rate) == pytest.approx(-3.01, abs=0.01)
    assert integrated_lufs(np.vstack([mono, mono]), rate) == pytest.approx(0.0, abs=0.01)


def test_filters_are_the_standards_at_48_khz() -> None:
    np.testing.assert_allclose(k_weighting(48000), [_SHELF, _HIGH_PASS], rtol=1e-12)


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 96000])
def test_filters_keep_their_shape_at_other_rates(rate: int) -> None:
    hz = np.array([20.0, 40.0, 100.0, 500.0, 1000.0, 2000.0])
    _, here = signal.freqz_sos(k_weighting(rate), worN=hz, fs=rate)
    _, there = signal.freqz_sos(k_weighting(48000), worN=hz, fs=48000)
    np.testing.assert_allclose(20 * np.log10(np.abs(here / there)), 0, atol=0.05 if rate > 30000 else 0.6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.4, 0.5, 3.7, 12.0])
def test_equal_to_pyloudnorm_on_whole_blocks(rate: int, channels: int, seconds: float) -> None:
    audio = noise(rate, seconds, channels)
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(audio.T)
    assert integrated_lufs(audio, rate) == pytest.approx(expected, abs=1e-6)


def test_incomplete_blocks_do_not_count() -> None:
    audio = tone(48000, 1.0)
    burst = np.concatenate([audio, 10 * tone(48000, 0.099)], axis=1)
    assert integrated_lufs(burst, 48000) == integrated_lufs(audio, 48000)


def test_gates_leave_pauses_out() -> None:
    music = tone(48000, 10.0, 0.1)
    pause = np.zeros((1, 48000 * 30))
    gated = integrated_lufs(np.concatenate([music, pause, music], axis=1), 48000)
    # the few blocks that hold both are all that is left of the pause
    assert gated == pytest.approx(integrated_lufs(music, 48000), abs=0.1)
    quiet = tone(48000, 30.0, 0.1 * 10 ** (-20 / 20))
    assert integrated_lufs(np.concatenate([music, quiet], axis=1), 48000) == pytest.approx(gated, abs=0.15)


@given(db=st.floats(-40, 40), seconds=st.floats(0.05, 3), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_scaling_moves_loudness_by_as_much(db: float, seconds: float, seed: int) -> None:
    # stationary, so that the absolute gate takes nothing away
    audio = 0.05 * np.random.default_rng(seed).standard_normal((2, int(seconds * 16000)))
    before, after = integrated_lufs(audio, 16000), integrated_lufs(audio * 10 ** (db / 20), 16000)
    assert after - before == pytest.approx(db, abs=1e-6)


@given(quieter=st.floats(0.0, 1.0), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_loudness_rises_with_gain(quieter: float, seed: int) -> None:
    audio = np.random.default_rng(seed).standard_normal((1, 16000)) * np.linspace(0, 1, 16000)
    assert integrated_lufs(quieter * audio, 16000) <= integrated_lufs(audio, 16000)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.399])
def test_short_clips_are_as_loud_as_they_sound(seconds: float) -> None:
    assert integrated_lufs(tone(48000, seconds), 48000) == pytest.approx(-3.01, abs=2.5 if seconds < 0.01 else 0.1)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("samples", [0, 1, 44, 4000, 100000])
def test_silence_and_offset_are_the_floor(rate: int, samples: int) -> None:
    assert integrated_lufs(np.zeros((2, samples), np.float32), rate) == SILENCE_LUFS
    assert integrated_lufs(np.full((1, samples), 1e-30, np.float32), rate) == SILENCE_LUFS


def test_constant_offset_counts_only_where_it_begins() -> None:
    # The high-pass has two poles at w = 2 pi 38.1 Hz; its step response (1 - w t) exp(-w t) has the energy 1 / (4 w)
    # and lies in one block. The shelf adds a little
    closed_form = -0.691 + 10 * np.log10(1 / (4 * 2 * np.pi * 38.1) / 0.4)
    step = np.ones((1, 10 * 44100), np.float32)
    assert integrated_lufs(step, 44100) == pytest.approx(closed_form, abs=0.3)


@pytest.mark.parametrize("value", [1.0, 3e38])
def test_full_scale_noise_is_finite(value: float) -> None:
    audio = np.random.default_rng(0).choice([-1, 1], (2, 44100)).astype(np.float32) * np.float32(value)
    assert np.isfinite(integrated_lufs(audio, 44100))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    audio = np.zeros((2, 44100), np.float32)
    audio[1, 20000] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        integrated_lufs(audio, 44100)
    with pytest.raises(ValueError, match="NaN or infinity"):
        true_peak(audio, 44100)


@pytest.mark.parametrize("shape", [(44100,), (3, 44100), (0, 44100)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 or 2 channels"):
        integrated_lufs(np.zeros(shape, np.float32), 44100)


def test_a_true_peak_lies_between_samples() -> None:
    for rate in (8000, 44100, 96000):
        faded = np.hanning(rate) * np.sin(np.pi / 2 * np.arange(rate) + np.pi / 4)
        assert 20 * np.log10(np.abs(faded).max()) == pytest.approx(-3.01, abs=0.01)
        assert 20 * np.log10(true_peak(faded[None], rate)) == pytest.approx(0, abs=0.01)
    # not looked for where samples lie close enough
    assert true_peak(faded[None], 192000) == np.abs(faded).max()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.3, 0.4])
def test_true_peak_of_tones_is_their_amplitude(share: float) -> None:
    """At 4 times the rate a peak may hide by 0.7 dB where the tone is near Nyquist (BS.1770-4 Annex 2, attachment)."""
    faded = np.hanning(20000) * np.sin(2 * np.pi * share * np.arange(20000) + 0.3)
    hidden = 20 * np.log10(np.cos(np.pi * share / 4))
    assert hidden - 0.02 <= 20 * np.log10(true_peak(faded[None], 44100)) <= 0.01


@given(seed=st.integers(0, 1000), rate=st.sampled_from([8000, 44100, 96000, 192000]), crest=st.floats(1, 9))
@settings(max_examples=40, deadline=None)
def test_what_is_skipped_holds_no_true_peak(seed: int, rate: int, crest: float) -> None:
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((2, 1000)) * rng.random((2, 1000)) ** crest
    filtered = [np.convolve(audio[c], phase) for phase in _phases(_factor(rate)).T[:, ::-1] for c in (0, 1)]
    assert true_peak(audio, rate) == pytest.approx(max(np.abs(part).max() for part in [*audio, *filtered]), rel=1e-12)


def test_oversampling_is_the_standards() -> None:
    factors = {44100: 4, 48000: 4, 95999: 4, 96000: 2, 176400: 2, 191999: 2, 192000: 1, 384000: 1, 16000: 12, 8000: 23}
    assert {rate: _factor(rate) for rate in factors} == factors


def test_interpolation_keeps_a_constant() -> None:
    assert _phases(4).shape == (24, 3) and _phases(2).shape == (24, 1)
    np.testing.assert_allclose(_phases(4).sum(axis=0), 1)
    np.testing.assert_allclose(_phases(4), _phases(4)[::-1, ::-1])


def test_gains() -> None:
    assert gain_to_db(-23.0, -18.0) == 5.0 and gain_to_db(-10.0, -18.0) == -8.0
    assert gain_to_db(-69.0, -18.0) == 51.0 and gain_to_db(-69.0, -18.0, max_gain_db=20.0) == 20.0
    assert gain_to_db(SILENCE_LUFS, -18.0) == 0.0
    assert ceiling_gain_db(2.0, 0.0) == pytest.approx(-6.0206, abs=1e-4)
    assert ceiling_gain_db(1.0, -1.0) == -1.0
    assert ceiling_gain_db(0.5, 0.0) == 0.0 and ceiling_gain_db(0.0, -1.0) == 0.0


def test_gain_brings_audio_to_the_target() -> None:
    audio = noise(44100, 6.0)
    gain = gain_to_db(integrated_lufs(audio, 44100), -18.0)
    # not exactly: blocks near the absolute gate may now pass it
    assert integrated_lufs(audio * 10 ** (gain / 20), 44100) == pytest.approx(-18.0, abs=0.1)


LUFS = [-30.0, -12.0, SILENCE_LUFS, -24.0]
PEAKS = [0.1, 0.9, 0.0, 0.5]


def test_equal_brings_each_stem_to_the_target_and_then_under_its_own_ceiling() -> None:
    assert stem_gains_db(LUFS, PEAKS, "equal", -18.0, 40.0, 0.0) == pytest.approx([12.0, -6.0, 0.0, 6.0])
    # 0.5 is -6.02 dBFS; 6 dB up and under -1 dBFS
    assert stem_gains_db(LUFS, PEAKS, "equal", -18.0, 40.0, -1.0)[3] == pytest.approx(5.02, abs=0.01)
    assert stem_gains_db(LUFS, PEAKS, "equal", -18.0, 3.0, 0.0) == pytest.approx([3.0, -6.0, 0.0, 3.0])


def test_as_recorded_moves_all_by_one_gain() -> None:
    assert stem_gains_db(LUFS, PEAKS, "as_recorded", -18.0, 40.0, 0.0) == pytest.approx([-6.0] * 4)
    assert stem_gains_db(LUFS, PEAKS, "as_recorded", -6.0, 40.0, 0.0) == pytest.approx([-20 * np.log10(0.9)] * 4)
    assert stem_gains_db(LUFS, [0.1] * 4, "as_recorded", 0.0, 5.0, 0.0) == [5.0] * 4


def test_where_all_is_silent_nothing_is_raised() -> None:
    for policy in ("equal", "as_recorded"):
        assert stem_gains_db([SILENCE_LUFS] * 2, [0.0, 1e-6], policy, -18.0, 40.0, 0.0) == [0.0, 0.0]
        assert stem_gains_db([], [], policy, -18.0, 40.0, 0.0) == []
    # a click of 5 ms measures as silence, and still may not clip
    assert stem_gains_db([SILENCE_LUFS] * 2, [2.0, 0.0], "equal", -18, 40, 0.0) == pytest.approx([-6.02, 0], abs=0.01)
    with pytest.raises(ValueError, match="policy 'loud' is not known"):
        stem_gains_db([], [], "loud", -18.0, 40.0, 0.0)  # type: ignore[arg-type]


@given(
    stems=st.lists(st.tuples(st.floats(-130, 60), st.floats(0, 1e6)), min_size=1, max_size=8),
    policy=st.sampled_from(["equal", "as_recorded"]),
    most=st.floats(0, 60),
    ceiling=st.floats(-20, 0),
)
def test_no_stem_passes_the_ceiling(
    stems: list[tuple[float, float]], policy: Policy, most: float, ceiling: float
) -> None:
    lufs, peaks = zip(*stems, strict=True)
    gains = stem_gains_db(lufs, peaks, policy, -18.0, most, ceiling)
    assert np.isfinite(gains).all() and max(gains) <= most
    most_linear = 10 ** (ceiling / 20) * (1 + 1e-9)
    assert all(peak * 10 ** (gain / 20) <= most_linear for peak, gain in zip(peaks, gains, strict=True))
    if policy == "as_recorded":
        assert len(set(gains)) == 1


@given(numbers=st.lists(st.floats(), min_size=7, max_size=7), policy=st.sampled_from(["equal", "as_recorded"]))
@settings(max_examples=300)
def test_gains_of_anything_are_finite_or_refused(numbers: list[float], policy: Policy) -> None:
    first, second, peak, other, target, most, ceiling = numbers
    calls = (
        lambda: [gain_to_db(first, target, most)],
        lambda: [ceiling_gain_db(peak, ceiling)],
        lambda: stem_gains_db([first, second], [peak, other], policy, target, most, ceiling),
    )
    for call in calls:
        try:
            gains = call()
        except ValueError:
            assert not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e300
            continue
        assert np.isfinite(gains).all()


def test_minus_infinity_is_silence_and_nothing_else_is() -> None:
    assert gain_to_db(-np.inf, -18.0) == 0.0
    assert stem_gains_db([-np.inf, -20.0], [0.0, 0.1], "as_recorded", -18.0, 40.0, 0.0) == [2.0, 2.0]
    for bad in (np.nan, np.inf):
        for policy in ("equal", "as_recorded"):
            with pytest.raises(ValueError, match="finite"):
                stem_gains_db([-20.0, bad, -20.0], [0.1] * 3, policy, -18.0, 40.0, 0.0)
            with pytest.raises(ValueError, match="finite"):
                stem_gains_db([-20.0] * 3, [0.1, bad, 0.1], policy, -18.0, 40.0, 0.0)
