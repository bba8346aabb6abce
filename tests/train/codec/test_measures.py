import math

import pytest
import torch

from train.codec.measures import log_mel, log_mel_distance, low_band_error, si_sdr_db

RATE = 44100


def sine(hertz: float, gain: float = 0.5, seconds: float = 1.0) -> torch.Tensor:
    return gain * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def test_a_gain_is_its_own_log_mel_distance() -> None:
    noise = 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    assert float(log_mel_distance(noise, noise / 10, RATE)) == pytest.approx(1.0, abs=1e-4)
    assert float(log_mel_distance(noise, noise, RATE)) == 0


def test_silence_is_at_the_floor() -> None:
    assert torch.equal(log_mel(torch.zeros(1, RATE), RATE), torch.full((1, 87, 80), -5.0))


def test_log_mel_peaks_at_the_tone() -> None:
    """HTK: mel = 2595 log10(1 + f / 700)."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    for hertz in (500.0, 2000.0, 8000.0):
        band = int(log_mel(sine(hertz)[None], RATE).mean((0, 1)).argmax())
        centre = (band + 1) * top / 81
        assert 2595 * math.log10(1 + hertz / 700) == pytest.approx(centre, abs=top / 81)


def test_si_sdr_closed_forms() -> None:
    """A signal plus an orthogonal one of a tenth of its amplitude: 20 dB, at any scale."""
    a, b = sine(441.0), sine(882.0)
    assert float(si_sdr_db(a, 3 * (a + 0.1 * b))) == pytest.approx(20.0, abs=1e-3)
    assert float(si_sdr_db(a, a)) > 100
    assert float(si_sdr_db(a, b)) < -60


def test_low_band_error_sees_only_the_low_band() -> None:
    low, high = sine(200.0), sine(5000.0)
    audio = (low + high).expand(1, 2, -1)
    assert float(low_band_error(audio, low.expand(1, 2, -1), RATE, 1000.0)) < 1e-4
    assert float(low_band_error(audio, high.expand(1, 2, -1), RATE, 1000.0)) == pytest.approx(1.0, abs=0.02)
    assert float(low_band_error(audio, 0.5 * audio, RATE, 1000.0)) == pytest.approx(0.25, abs=0.01)
