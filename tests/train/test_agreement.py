from collections.abc import Callable

import numpy as np
import pytest

from tests.train.made import RATE
from train.agreement import chroma_agreement, onset_agreement

BEAT = RATE // 3
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))


def note(semitone: float, samples: int) -> np.ndarray:
    """A decaying tone with three harmonics, from A3 on, which ends without a click."""
    time = np.arange(samples) / RATE
    hz = 220 * 2 ** (semitone / 12)
    return (
        sum(np.sin(2 * np.pi * hz * k * time) / k for k in (1, 2, 3))
        * np.exp(-4 * time)
        * np.minimum(1, 20 * (time[-1] - time))
    )


def chords(transposed: float = 0.0, rhythm: tuple[int, ...] = (1, 1, 0, 1)) -> np.ndarray:
    """Eight seconds: a chord a bar of four beats, struck where the rhythm says."""
    audio = np.zeros((2, 8 * RATE))
    for beat in range(24):
        if rhythm[beat % len(rhythm)]:
            for semitone in CHORDS[beat // 4 % 4]:
                audio[:, beat * BEAT : (beat + 1) * BEAT] += 0.1 * note(semitone + transposed, BEAT)
    return audio.astype(np.float32)


def bass(transposed: float = 0.0, late: int = 0) -> np.ndarray:
    """The chords' roots, an octave below, where they are struck."""
    audio = np.zeros((2, 8 * RATE))
    for beat in range(24):
        if beat % 4 != 2:
            audio[:, beat * BEAT : (beat + 1) * BEAT] += 0.3 * note(CHORDS[beat // 4 % 4][0] - 12 + transposed, BEAT)
    return np.roll(audio, late, axis=1).astype(np.float32)


def clicks(late: int = 0) -> np.ndarray:
    rng, audio = np.random.default_rng(0), np.zeros((2, 8 * RATE))
    for beat in range(24):
        if beat % 4 != 2:
            audio[:, beat * BEAT : beat * BEAT + 2000] = rng.normal(0, 0.2, 2000) * np.exp(-np.arange(2000) / 400)
    return np.roll(audio, late, axis=1).astype(np.float32)


def test_a_sound_agrees_with_itself_whatever_its_loudness() -> None:
    assert chroma_agreement(chords(), 0.1 * chords(), RATE) == pytest.approx(1.0, abs=0.01)
    assert onset_agreement(chords(), chords(), RATE) == pytest.approx(1.0)
    assert onset_agreement(chords(), 0.3 * chords(), RATE) > 0.9


def test_roots_agree_with_their_chords_and_transposed_ones_do_not() -> None:
    right = chroma_agreement(bass(), chords(), RATE)
    others = [chroma_agreement(bass(semitones), chords(), RATE) for semitones in (1, 3, 6)]
    assert right > 0.4 and max(others) < right - 0.3
    assert chroma_agreement(bass(12), chords(), RATE) == pytest.approx(right, abs=0.15)


def test_chords_of_another_bar_agree_less() -> None:
    assert chroma_agreement(bass(late=4 * BEAT), chords(), RATE) < chroma_agreement(bass(), chords(), RATE) - 0.2


@pytest.mark.parametrize("played", [bass, clicks])
def test_onsets_that_are_late_agree_less(played: Callable[..., np.ndarray]) -> None:
    right, slightly, late = (onset_agreement(played(late=samples), chords(), RATE) for samples in (0, 441, BEAT // 2))
    assert right > 0.7 and right > slightly > 0.5 and late < 0.1


def test_rhythm_counts_and_harmony_does_not_for_onsets() -> None:
    assert onset_agreement(bass(6), chords(), RATE) > 0.7
    assert onset_agreement(bass(), chords(rhythm=(0, 0, 1, 0)), RATE) < 0.2


def test_what_is_silent_agrees_with_nothing() -> None:
    silence = np.zeros((2, 8 * RATE), np.float32)
    for measure in (chroma_agreement, onset_agreement):
        assert (
            measure(silence, chords(), RATE) == measure(chords(), silence, RATE) == measure(silence, silence, RATE) == 0
        )


def test_moments_at_which_one_is_silent_do_not_count_for_harmony() -> None:
    half = chords()
    half[:, 4 * RATE :] = 0
    assert chroma_agreement(half, chords(), RATE) > 0.75  # at its end, a second is taken together
