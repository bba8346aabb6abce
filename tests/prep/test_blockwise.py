"""Filtering in blocks against scipy's sample by sample."""

import numpy as np
import pytest
from scipy import signal

from prep.stages.activity import frame_edges, levels_of
from prep.stages.blockwise import UNIT, BlockFilter
from prep.stages.weighting import a_weighting, a_weighting_in_blocks, k_weighting, weighted_energies


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
@pytest.mark.parametrize("weighting", [a_weighting, k_weighting])
@pytest.mark.parametrize("units", [1, 3])
def test_equal_to_scipys(weighting: object, rate: int, units: int) -> None:
    sections = weighting(rate).copy()  # type: ignore[operator]
    before, samples = np.split(np.random.default_rng(0).standard_normal((units + 1) * UNIT), [UNIT])
    _, state = signal.sosfilt(sections, before, zi=np.zeros((len(sections), 2)))
    expected, after = signal.sosfilt(sections, samples, zi=state)
    filtered, ours = BlockFilter(sections)(samples, state)
    np.testing.assert_allclose(filtered, expected, atol=1e-9)
    np.testing.assert_allclose(ours, after, atol=1e-9)


def test_a_state_goes_from_one_to_the_other() -> None:
    sections = a_weighting(44100).copy()
    samples = np.random.default_rng(0).standard_normal(3 * UNIT).astype(np.float32)
    expected, _ = signal.sosfilt(sections, samples, zi=np.zeros((3, 2)))
    first, state = BlockFilter(sections)(samples[:UNIT], np.zeros((3, 2)))
    second, state = signal.sosfilt(sections, samples[UNIT : 2 * UNIT], zi=state)
    third, _ = BlockFilter(sections)(samples[2 * UNIT :], state)
    np.testing.assert_allclose(np.concatenate([first, second, third]), expected, atol=1e-10)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_levels_are_the_same_down_to_the_floor(rate: int) -> None:
    """Steps of 20 dB from full scale down, on an offset and a rumble that the weighting has to take away."""
    samples = 7 * UNIT + 5000
    time_s = np.arange(samples) / rate
    step = 10.0 ** -np.minimum(6, np.arange(samples) // UNIT)
    audio = step * np.random.default_rng(0).standard_normal((2, samples)) + 0.5 + 0.3 * np.sin(2 * np.pi * 15 * time_s)
    edges = frame_edges(samples, rate)
    serial, blocks = (
        levels_of(weighted_energies(audio, weighting(rate), edges), edges, 2)
        for weighting in (a_weighting, a_weighting_in_blocks)
    )
    np.testing.assert_allclose(blocks, serial, atol=1e-4)
