"""Bandwidth, stereo image and latents' statistics: closed forms."""

import math

import pytest
import torch

from train.codec.latents import statistics
from train.codec.measures import low_pass, si_sdr_db, stft_distance
from train.codec.spectra import bandwidth_hz, image_distance

RATE = 44100


def noise(seed: int, channels: int = 2, samples: int = 2 * RATE) -> torch.Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def test_a_gain_is_its_own_stft_distance() -> None:
    """A tenth: spectral convergence 0.9, and ln 10 in every bin."""
    x = noise(0)
    assert float(stft_distance(x, x / 10)) == pytest.approx(0.9 + math.log(10), abs=1e-3)
    assert float(stft_distance(x, x)) == 0


def test_a_low_pass_has_the_bandwidth_of_its_edge() -> None:
    x = noise(0)
    assert bandwidth_hz(x, x, RATE) > 19000
    for edge in (1000.0, 4000.0, 8000.0):
        assert bandwidth_hz(x, low_pass(x, RATE, edge), RATE) == pytest.approx(edge, rel=0.13)
        assert bandwidth_hz(low_pass(x, RATE, edge), x, RATE) == pytest.approx(edge, rel=0.13)
    assert bandwidth_hz(x, x / 2.1, RATE) == 0 and bandwidth_hz(x, x / 1.9, RATE) > 19000
    assert bandwidth_hz(torch.zeros(2, RATE), noise(1), RATE) == 0


def test_low_pass_takes_only_what_is_above() -> None:
    t = torch.arange(RATE) / RATE
    low, high = torch.sin(2 * math.pi * 400 * t), torch.sin(2 * math.pi * 5000 * t)
    assert float(si_sdr_db(low, low_pass(low + high, RATE, 4000))) > 60
    assert float(low_pass(high, RATE, 4000).abs().max()) < 1e-3


def test_image_of_mono_sides_and_widths() -> None:
    mid, side = noise(0, 1), noise(1, 1)
    even = torch.cat([mid + side, mid - side])
    assert image_distance(even, even, RATE) == (0.0, 0.0)
    wider = torch.cat([mid + 2 * side, mid - 2 * side])
    ratio, correlation = image_distance(even, wider, RATE)
    assert ratio == pytest.approx(6.02, abs=0.02)
    assert correlation == pytest.approx(0.6, abs=0.03)  # (1 - 4) / (1 + 4)
    mono = torch.cat([mid, mid])
    ratio, correlation = image_distance(even, mono, RATE)
    assert ratio == pytest.approx(40, abs=1) and correlation == pytest.approx(1, abs=0.03)
    assert image_distance(even, even * 0.1, RATE) == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-3))
    assert all(math.isfinite(x) for x in image_distance(torch.zeros_like(even), even, RATE))


def test_statistics_of_known_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    normal = 2 * torch.randn(50000, generator=rng) + 1
    uniform = torch.rand(50000, generator=rng)
    s = statistics(torch.stack([normal, uniform, -normal, torch.ones(50000)], dim=1))
    torch.testing.assert_close(s.mean, torch.tensor([1, 0.5, -1, 1]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(s.variance, torch.tensor([4, 1 / 12, 4, 0]).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(s.kurtosis, torch.tensor([0, -1.2, 0, 0]).double(), atol=0.1, rtol=0)
    # pairs in order: 01 02 03 12 13 23
    torch.testing.assert_close(s.correlation, torch.tensor([0, 1, 0, 0, 0, 0]).double(), atol=0.02, rtol=0)
