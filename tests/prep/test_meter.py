"""A meter fed in any blocks against the whole, and every measure against input that no engineer would send."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prep.stages.activity import levels_db
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs, true_peak
from prep.stages.meter import Meter

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000)


def music(rate: int, samples: int, channels: int) -> np.ndarray:
    """Bursts of noise, pauses of digital silence; a third is alike on all channels."""
    rng = np.random.default_rng(samples)
    audio = 0.3 * rng.standard_normal((channels, samples))
    audio *= np.repeat(rng.integers(0, 2, samples // 500 + 1), 500)[:samples]
    audio[:, : samples // 3] = audio[:1, : samples // 3]
    return audio.astype(np.float32)


def fed(audio: np.ndarray, rate: int, lengths: list[int]) -> Meter:
    """A meter that has been fed blocks of these lengths in turn, again and again, until the audio was through."""
    meter = Meter(rate, *audio.shape, true_peak=True)
    at, turn = 0, 0
    while at < audio.shape[1]:
        length = lengths[turn % len(lengths)]
        meter.feed(audio[:, at : at + length])
        at, turn = at + length, turn + 1
    return meter


def assert_measures_the_whole(meter: Meter, audio: np.ndarray, rate: int) -> None:
    assert meter.lufs() == pytest.approx(integrated_lufs(audio, rate), abs=1e-9)
    # float32 holds a level of -60 dB to 4e-6; a rounding may fall the other way
    np.testing.assert_allclose(meter.levels_db(), levels_db(audio, rate), atol=1e-5)
    assert meter.peak == np.abs(audio).max(initial=0.0)
    # 1e-10 of an amplitude is 1e-9 dB
    assert meter.true_peak == pytest.approx(true_peak(audio, rate), rel=1e-10, abs=0)


@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 22, 23, 24, 63, 64, 440, 441, 4410, 9999]), min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
    rate=st.sampled_from(RATES),
    channels=st.sampled_from([1, 2]),
)
@example(lengths=[70000, 1], seed=60000, rate=44100, channels=2)
@settings(max_examples=60, deadline=None)
def test_any_blocks_measure_as_the_whole(lengths: list[int], seed: int, rate: int, channels: int) -> None:
    if sum(lengths) == 0:
        lengths = [*lengths, 1000]
    # as many samples as keep the number of blocks small
    audio = music(rate, 1 + min(500 + 2 * seed, 40 * sum(lengths)), channels)
    assert_measures_the_whole(fed(audio, rate, lengths), audio, rate)


def test_single_samples_measure_as_the_whole() -> None:
    audio = music(8000, 3300, 2)
    assert_measures_the_whole(fed(audio, 8000, [1]), audio, 8000)


def test_channels_that_part_and_meet_again() -> None:
    rng = np.random.default_rng(1)
    both = np.repeat(0.1 * rng.standard_normal((1, 300000)), 2, axis=0).astype(np.float32)
    both[1, 70000:80000] = 0.0
    meter = fed(both, 44100, [65536])
    assert_measures_the_whole(meter, both, 44100)
    left, right = fed(both[:1], 44100, [5000]), fed(both[1:], 44100, [7000])
    power = [10 ** (m.levels_db().astype(np.float64) / 10) for m in (left, right)]
    np.testing.assert_allclose(meter.levels_db(), 10 * np.log10(np.mean(power, axis=0)), atol=1e-4)


def test_memory_does_not_grow_with_the_stream() -> None:
    def peak_bytes(blocks: int) -> int:
        block = music(44100, 44100, 2)
        tracemalloc.start()
        meter = Meter(44100, 2, blocks * 44100, true_peak=True)
        for _ in range(blocks):
            meter.feed(block)
        assert meter.lufs() > -20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # what is made once
    # 60 energies of 8 bytes a second, and their edges
    assert peak_bytes(40) - peak_bytes(4) < 36 * 60 * 2 * 8 + 20000


def signals(rate: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rate)
    second = rng.choice([-1.0, 1.0], (2, rate)).astype(np.float32)
    return {
        "nothing": second[:, :0],
        "one sample": second[:, :1],
        "1 ms": second[:, : rate // 1000],
        "399 ms": second[:, : 399 * rate // 1000],
        "silence": 0 * second,
        "full-scale noise": second,
        "denormals": second * np.float32(1e-42),
        "float32 max": second * np.finfo(np.float32).max,
        "DC": np.ones_like(second),
        "an impulse": np.eye(2, rate, rate // 2, dtype=np.float32),
    }


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", list(signals(8000)))
def test_every_measure_of_anything_finite_is_finite(name: str, rate: int) -> None:
    audio = signals(rate)[name]
    for shown in (audio, audio[:1], audio.astype(np.float64)):
        lufs, levels, peak = integrated_lufs(shown, rate), levels_db(shown, rate), true_peak(shown, rate)
        assert np.isfinite(lufs) and np.isfinite(levels).all() and np.isfinite(peak)
        assert lufs >= SILENCE_LUFS and (levels >= -120).all() and peak >= float(np.abs(shown).max(initial=0.0))
        assert len(levels) == -(-shown.shape[1] * 50 // rate)
    if name in ("nothing", "silence", "denormals"):
        assert lufs == SILENCE_LUFS and (levels == -120).all()


@given(
    values=st.lists(st.floats(width=32), max_size=50),
    channels=st.sampled_from([1, 2]),
    rate=st.sampled_from(RATES),
    repeats=st.sampled_from([1, 7, 200]),
)
@settings(max_examples=100, deadline=None)
def test_any_floats_are_measured_or_refused(values: list[float], channels: int, rate: int, repeats: int) -> None:
    audio = np.tile(np.array(values, np.float32), (channels, repeats))
    if np.isfinite(audio).all():
        measured = (integrated_lufs(audio, rate), *levels_db(audio, rate), true_peak(audio, rate))
        assert np.isfinite(measured).all()
        assert_measures_the_whole(fed(audio, rate, [3, 100]), audio, rate)
        return
    meter = Meter(rate, *audio.shape)
    for measure in (integrated_lufs, levels_db, true_peak, lambda audio, rate: meter.feed(audio)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            measure(audio, rate)


def test_a_meter_of_nothing() -> None:
    meter = Meter(44100, 2, 0, true_peak=True)
    meter.feed(np.zeros((2, 0), np.float32))
    assert meter.lufs() == SILENCE_LUFS and meter.levels_db().shape == (0,)
    assert meter.peak == 0.0 and meter.true_peak == 0.0


def test_misuse_is_refused() -> None:
    meter = Meter(44100, 2, 100)
    with pytest.raises(ValueError, match="0 samples of 100 have been fed"):
        meter.lufs()
    for wrong in (np.zeros((1, 10), np.float32), np.zeros((2, 101), np.float32)):
        with pytest.raises(ValueError, match=r"there is room for \(2, 100\)"):
            meter.feed(wrong)
    with pytest.raises(ValueError, match="a block has shape"):
        meter.feed(np.zeros(10, np.float32))
    meter.feed(np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match="true_peak=True"):
        _ = meter.true_peak
    with pytest.raises(ValueError, match="3 channels"):
        Meter(44100, 3, 100)
