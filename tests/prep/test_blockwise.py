"""Filtering in blocks against scipy's sample by sample."""

import numpy as np
import pytest
from scipy import signal
from threadpoolctl import threadpool_limits

from prep.stages.activity import frame_edges, levels_of
from prep.stages.blockwise import UNIT, BlockFilter
from prep.stages.meter import Meter
from prep.stages.weighting import (
    _CHUNK_SAMPLES,
    a_weighting,
    a_weighting_in_blocks,
    k_weighting,
    weighted_energies,
)


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


def test_levels_as_stored_are_the_same_however_a_stream_comes() -> None:
    """What is loud is what the weighting takes away; what is left of it is quiet."""
    samples = 37 * UNIT + 1000
    time_s = np.arange(samples) / 44100
    treble = 10.0 ** -(3 + 2 * np.sin(time_s)) * np.random.default_rng(0).standard_normal((2, samples))
    audio = (treble + 0.1 + 0.8 * np.sin(2 * np.pi * 25 * time_s)).astype(np.float32)
    edges = frame_edges(samples, 44100)
    serial = levels_of(weighted_energies(audio, a_weighting(44100), edges), edges, 2).astype(np.float16)
    assert serial.min() < -45 and serial.max() > -25
    for length in (samples, 16 * UNIT, UNIT, UNIT - 1, 2 * UNIT + 1, 300000):
        meter = Meter(44100, 2, samples)
        for start in range(0, samples, length):
            meter.feed(audio[:, start : start + length])
        np.testing.assert_array_equal(meter.levels_db().astype(np.float16), serial)


@pytest.mark.parametrize("units", [1, 2, 7, _CHUNK_SAMPLES // UNIT])
def test_the_same_bits_on_any_number_of_threads(units: int) -> None:
    samples = np.random.default_rng(0).standard_normal(units * UNIT).astype(np.float32)
    blocks, rest = BlockFilter(a_weighting(44100)), np.zeros((3, 2))
    with threadpool_limits(1):
        expected, after = (found.copy() for found in blocks(samples, rest))
    for threads in (2, 3, 8):
        with threadpool_limits(threads):
            filtered, state = blocks(samples, rest)
        np.testing.assert_array_equal(filtered, expected)
        np.testing.assert_array_equal(state, after)


def test_room_used_again_keeps_nothing_of_what_was_there() -> None:
    blocks = BlockFilter(k_weighting(44100))
    samples = np.random.default_rng(0).standard_normal(3 * UNIT)
    expected, after = (found.copy() for found in blocks(samples, np.zeros((2, 2))))
    blocks(samples * 1e300, np.full((2, 2), 1e300))
    filtered, state = blocks(samples, np.zeros((2, 2)))
    np.testing.assert_array_equal(filtered, expected)
    np.testing.assert_array_equal(state, after)
