"""Mixes as plain sums of known gain, brought to a loudness; and the mixes that are made to judge what was played."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from prep.stages.loudness import SILENCE_LUFS, integrated_lufs
from prep.stages.mixing import evaluation_mix, mix_audio, mix_gain_db


def stems() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((4, 2, 44100))).astype(np.float32)


def test_mix_is_the_plain_sum_of_gained_stems() -> None:
    audio = stems()
    before = audio.copy()
    mix = mix_audio(audio, [0.0, -6.0, 3.0, 20.0], (0, 2))
    np.testing.assert_allclose(mix, audio[0] + 10 ** (3 / 20) * audio[2], atol=1e-6)
    assert mix.dtype == np.float32
    np.testing.assert_array_equal(mix, mix_audio(audio, [0.0, -6.0, 3.0, 20.0], (2, 0)))
    np.testing.assert_array_equal(audio, before)
    with pytest.raises(ValueError, match="at least one member"):
        mix_audio(audio, [0.0] * 4, ())


@pytest.mark.parametrize("offset_db", [-6.0, 0.0, 5.5])
def test_mix_comes_to_its_loudness(offset_db: float) -> None:
    mix = mix_audio(stems(), [0.0] * 4, (0, 1, 2, 3))
    gain = mix_gain_db(integrated_lufs(mix, 44100), float(np.abs(mix).max()), -18.0, offset_db)
    assert integrated_lufs(mix * 10 ** (gain / 20), 44100) == pytest.approx(-18.0 + offset_db, abs=1e-4)


@pytest.mark.parametrize("ceiling_db", [0.0, -1.0])
def test_over_full_scale_is_attenuated_and_not_clipped(ceiling_db: float) -> None:
    mix = stems()[0]
    mix[0, 100] = 3.0
    gain = mix_gain_db(integrated_lufs(mix, 44100), 3.0, -18.0, 6.0, ceiling_db)
    assert 3.0 * 10 ** (gain / 20) == pytest.approx(10 ** (ceiling_db / 20), abs=1e-9)


def test_a_silent_mix_is_not_amplified_but_held_to_the_ceiling() -> None:
    assert mix_gain_db(SILENCE_LUFS, 0.0, -18.0, 3.0) == 0.0
    assert mix_gain_db(SILENCE_LUFS, 2.0, -18.0, 3.0) == pytest.approx(-20 * np.log10(2.0))  # so it is with DC


def separate() -> list[np.ndarray]:
    """Four stems of noise at levels 6 dB apart, each in 3 s of its own, so that it can be found in a mix."""
    audio = np.zeros((4, 2, 4 * 132300), np.float32)
    for i in range(4):
        noise = np.random.default_rng(i).standard_normal((2, 132300))
        audio[i, :, i * 132300 : (i + 1) * 132300] = 0.02 * 2.0**i * noise
    return list(audio)


@pytest.mark.parametrize("played_gain_db", [5.0, 0.0])
def test_evaluation_mix_brings_inputs_to_one_loudness_and_the_played_over_them(played_gain_db: float) -> None:
    *inputs, played = separate()
    mix = evaluation_mix(inputs, played, 44100, played_gain_db=played_gain_db)
    assert integrated_lufs(mix, 44100) == pytest.approx(-18.0, abs=0.05)
    came_to = []
    for i, stem in enumerate([*inputs, played]):
        there = np.s_[:, i * 132300 : (i + 1) * 132300]  # nothing but this stem and its gain
        gain_db = 20 * np.log10(np.linalg.norm(mix[there]) / np.linalg.norm(stem[there]))
        came_to.append(integrated_lufs(stem, 44100) + gain_db)
    assert came_to[:3] == pytest.approx([came_to[3] - played_gain_db] * 3, abs=0.001)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2)])
def test_evaluation_mix_comes_to_its_loudness(rate: int, channels: int) -> None:
    audio = 0.3 * np.random.default_rng(0).standard_normal((5, channels, 4 * rate)).astype(np.float32)
    before = audio.copy()
    mix = evaluation_mix(list(audio[:4]), audio[4], rate, target_lufs=-23.0)
    assert mix.dtype == np.float32 and mix.shape == audio[0].shape
    assert integrated_lufs(mix, rate) == pytest.approx(-23.0, abs=0.05)
    np.testing.assert_array_equal(audio, before)
    alone = evaluation_mix([], audio[4], rate)
    assert integrated_lufs(alone, rate) == pytest.approx(-18.0, abs=0.05)


def test_evaluation_mix_is_attenuated_below_its_ceiling_and_not_clipped() -> None:
    audio = stems()
    audio[0, 0, 1000] = 30.0
    mix = evaluation_mix(list(audio[:3]), audio[3], 44100)
    assert np.abs(mix).max() == pytest.approx(0.99, abs=1e-5)
    assert integrated_lufs(mix, 44100) < -18.1
    assert np.abs(np.delete(mix[0], 1000)).max() < 0.5


@pytest.mark.parametrize("silent", [(0, 1), (2,), (0, 1, 2)])
def test_evaluation_mix_leaves_silence_silent(silent: tuple[int, ...]) -> None:
    audio = stems()[:3]
    audio[list(silent)] = 0
    mix = evaluation_mix(list(audio[:2]), audio[2], 44100)
    if len(silent) == 3:
        assert not mix.any()
    else:
        assert integrated_lufs(mix, 44100) == pytest.approx(-18.0, abs=0.05)


def test_evaluation_mix_gives_finite_numbers_below_the_ceiling_for_anything_finite() -> None:
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (2, 22050)).astype(np.float32)
    kinds = {"dc": 0 * noise + 1, "full": noise, "denormal": noise * np.float32(1e-41), "loud": noise * np.float32(1e6)}
    kinds |= {"quiet": noise * np.float32(1e-4), "zero": 0 * noise}
    for one, two in combinations_with_replacement(kinds, 2):
        for length in (0, 1, 44, 17639, 22050):
            mix = evaluation_mix([kinds[one][:, :length]], kinds[two][:, :length], 44100)
            assert np.isfinite(mix).all() and np.abs(mix).max(initial=0) < 0.99001, (one, two, length)
    assert not evaluation_mix([noise], -noise, 44100, played_gain_db=0.0).any()


def test_evaluation_mix_says_what_it_cannot_take() -> None:
    audio = stems()
    message = r"must have equal channels and lengths; they have \(2, 44100\), \(2, 44099\)"
    with pytest.raises(ValueError, match=message):
        evaluation_mix([audio[0]], audio[1, :, 1:], 44100)
    audio[0, 0, 5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        evaluation_mix([audio[0]], audio[1], 44100)
