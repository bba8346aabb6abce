"""Onsets and pitches on signals whose notes are known."""

import math

import numpy as np
import pytest
import torch

from train.codec.notes import Notes, onsets_kept, onsets_of, pitches_kept, tones_found

RATE = 44100


def bursts(times: list[float], hertz: list[float], seconds: float = 4.0, length: float = 0.4) -> torch.Tensor:
    """(2, samples) of tones that decay to nothing."""
    audio = torch.zeros(round(seconds * RATE))
    for start, f in zip(times, hertz, strict=True):
        t = torch.arange(round(length * RATE)) / RATE
        first = round(start * RATE)
        audio[first : first + len(t)] += 0.3 * torch.sin(2 * math.pi * f * t) * torch.exp(-6 * t) * (1 - t / length)
    return audio.expand(2, -1).contiguous()


def noise(seed: int, seconds: float = 4.0) -> torch.Tensor:
    return 0.1 * torch.randn(2, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


TIMES = [0.5, 1.0, 1.37, 2.2, 3.1]
HERTZ = [220.0, 440.0, 277.18, 880.0, 1760.0]
PITCHES = np.array([57, 69, 61, 81, 93])


def test_onsets_are_where_the_tones_begin() -> None:
    found = onsets_of(bursts(TIMES, HERTZ), RATE)
    assert len(found) == 5 and np.abs(found - TIMES).max() < 0.02
    assert len(onsets_of(torch.zeros(2, RATE), RATE)) == 0


def test_onsets_kept_and_added_are_counted() -> None:
    notes = Notes(np.array([*TIMES, 3.7]), np.array([*PITCHES, 60]))  # the last one is not to be heard in the original
    audio = bursts(TIMES, HERTZ)
    assert onsets_kept(audio, audio, notes, RATE) == (1.0, 0.0)
    other = bursts([*TIMES[:3], 2.6], [*HERTZ[:3], 880.0])
    assert onsets_kept(audio, other, notes, RATE) == (pytest.approx(3 / 5), pytest.approx(1 / 4))
    kept, added = onsets_kept(audio, torch.zeros_like(audio), notes, RATE)
    assert kept == 0 and math.isnan(added)


def test_tones_are_found_at_their_pitch_only() -> None:
    audio = bursts(TIMES, HERTZ)
    starts = np.array([round(t * RATE) for t in TIMES])
    assert tones_found(audio, starts, np.array(HERTZ), RATE).all()
    for semitones in (-2, -1, 1, 2):
        assert not tones_found(audio, starts, np.array(HERTZ) * 2 ** (semitones / 12), RATE).any()


def test_noise_has_next_to_no_tones() -> None:
    hertz = 110 * 2 ** (np.arange(60) / 12)
    places = [(s, f) for s in range(0, 3 * RATE, RATE // 3) for f in hertz]
    starts, tones = (np.array(x) for x in zip(*places, strict=True))
    assert tones_found(noise(0), starts, tones, RATE).mean() < 0.02


def test_pitches_kept_by_a_low_pass_and_lost_in_noise() -> None:
    """Drums, and what is not heard or outside 100 Hz to 4 kHz, do not count."""
    notes = Notes(np.array([*TIMES, 0.5, 0.5, 1.0]), np.array([*PITCHES, -1, 30, 50]))
    audio = bursts(TIMES, HERTZ)
    assert pitches_kept(audio, audio, notes, RATE) == 1.0
    assert pitches_kept(audio, bursts(TIMES[:3], HERTZ[:3]), notes, RATE) == pytest.approx(3 / 5)
    assert pitches_kept(audio, noise(1), notes, RATE) < 0.3
    assert math.isnan(pitches_kept(noise(1), audio, Notes(np.zeros(1), np.array([30])), RATE))
