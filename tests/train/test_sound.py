import numpy as np
import pyloudnorm
import pytest
import soxr

from tests.train.made import RATE, LinearCodec
from train.sound import Fit, Meter, Resampler, gain_db, level_note

IDENTITY = LinearCodec().identity


def noise(seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, int(seconds * RATE)))).astype(np.float32)


def in_blocks(audio: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(audio, np.cumsum(sizes), axis=1)


def measured(audio: np.ndarray, *sizes: int) -> float:
    meter = Meter(RATE, len(audio))
    for block in in_blocks(audio, *sizes):
        meter.feed(block)
    return meter.lufs


def test_loudness_is_the_standards_tone_and_pyloudnorms_number() -> None:
    """BS.1770: a full-scale tone of 997 Hz on one channel is -3.01 LKFS."""
    tone = np.sin(2 * np.pi * 997 * np.arange(5 * RATE) / RATE)[None].astype(np.float32)
    assert measured(tone) == pytest.approx(-3.01, abs=0.01)
    assert measured(np.repeat(tone, 2, axis=0)) == pytest.approx(0.0, abs=0.01)
    swelling = noise(8) * np.linspace(0.001, 1, 8 * RATE, dtype=np.float32) ** 3  # both gates have something to do
    oracle = pyloudnorm.Meter(RATE, filter_class="DeMan").integrated_loudness(swelling.T.astype(np.float64))
    assert measured(swelling) == pytest.approx(oracle, abs=0.05)
    assert measured(swelling) > measured(0.5 * swelling) + 6


def test_loudness_does_not_depend_on_the_blocks() -> None:
    audio = noise(2)
    assert measured(audio, 1, 7, 4410, 30000) == pytest.approx(measured(audio), abs=1e-9)


def test_short_and_silent_inputs_have_a_loudness() -> None:
    assert measured(noise(0.3)) == pytest.approx(measured(noise(3)), abs=0.5)
    assert measured(np.zeros((2, RATE), np.float32)) == -np.inf
    assert measured(np.zeros((2, 0), np.float32)) == -np.inf


def test_gains_lead_to_the_loudness_of_training_and_lift_no_silence() -> None:
    assert gain_db(-30.0) == 12.0 and gain_db(-9.0) == -9.0 and gain_db(-18.0) == 0.0
    assert gain_db(-80.0) == 0.0 and gain_db(-np.inf) == 0.0
    assert level_note(-30.0) == (
        "the mix was taken to be at -30.0 LUFS and heard +12.0 dB louder, at -18 as in training"
    )
    assert level_note(-np.inf) == "the mix was heard as it is, at -inf LUFS"


@pytest.mark.parametrize("rate", [48000, 22050])
def test_resampled_in_blocks_is_resampled_whole(rate: int) -> None:
    audio = noise(1)
    resample = Resampler(rate, RATE, 2)
    blocks = in_blocks(audio, 100, 5000, 64, 20000)
    found = np.concatenate([resample(block, last=block is blocks[-1]) for block in blocks], axis=1)
    whole = soxr.resample(audio.T, rate, RATE).T
    assert found.shape[1] == pytest.approx(whole.shape[1], abs=1)
    count = min(found.shape[1], whole.shape[1])
    np.testing.assert_allclose(found[:, :count], whole[:, :count], atol=1e-5)


def test_what_fits_is_handed_on_untouched_and_nothing_is_said() -> None:
    audio, fit = noise(0.1), Fit(RATE, 2, IDENTITY)
    assert fit(audio) is audio and fit.notes == []


def test_other_channels_are_averaged_onto_all_and_that_is_said() -> None:
    audio, fit = noise(0.1, channels=6), Fit(RATE, 6, IDENTITY)
    fitted = fit(audio)
    assert fitted.shape == (2, audio.shape[1])
    np.testing.assert_allclose(fitted, np.repeat(audio.mean(axis=0, keepdims=True), 2, axis=0), atol=1e-7)
    assert fit.notes == ["the mix's 6 channels were averaged to one, on all 2 of the codec's"]
