"""Each change against its closed form, the draws against their probabilities, and what must hold for any signal."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from prep.config import Augment
from prep.stages.augment import (
    Augmentation,
    augment,
    augmented_length,
    draw_augmentation,
    draw_heard,
    draw_stem_gain_db,
)

RATE = 44100
ALL = Augmentation(0.9, 2.0, True, True, True, ((100.0, 6.0, 1.0), (1000.0, -6.0, 0.5), (9000.0, 3.0, 2.0)), 6000.0)


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (channels, samples)).astype(np.float32)


def impulse_response_db(augmentation: Augmentation, hz: list[float], rate: int = RATE) -> np.ndarray:
    impulse = np.zeros((1, rate), np.float32)
    impulse[0, 0] = 1
    _, response = signal.freqz(augment(impulse, rate, augmentation, False)[0], worN=hz, fs=rate)
    return 20 * np.log10(np.abs(response))


def test_nothing_changes_nothing() -> None:
    audio = noise(RATE)
    same = augment(audio, RATE, Augmentation(), False)
    assert same.tobytes() == audio.tobytes() and not np.shares_memory(same, audio)


def test_polarity_and_swap() -> None:
    audio = noise(1000)
    np.testing.assert_array_equal(augment(audio, RATE, Augmentation(polarity=True), False), -audio)
    np.testing.assert_array_equal(augment(audio, RATE, Augmentation(swap=True), False), audio[::-1])
    np.testing.assert_array_equal(augment(audio[:1], RATE, Augmentation(swap=True), False), audio[:1])


@pytest.mark.parametrize(("hz", "db", "q"), [(100.0, 6.0, 0.7), (1000.0, -6.0, 1.0), (9000.0, 4.5, 2.0)])
def test_a_band_is_its_gain_at_its_centre_and_flat_far_away(hz: float, db: float, q: float) -> None:
    gains = impulse_response_db(Augmentation(bands=((hz, db, q),)), [1.0, hz, 21000.0])
    np.testing.assert_allclose(gains, [0, db, 0], atol=0.15)
    # RBJ's Q is that of the analogue prototype, half the gain (dB) lies at hz (sqrt(1 + 1/4Q^2) +- 1/2Q)
    edges = [hz * (np.hypot(1, 1 / (2 * q)) + side / (2 * q)) for side in (-1, 1)]
    if hz < 2000:
        np.testing.assert_allclose(impulse_response_db(Augmentation(bands=((hz, db, q),)), edges), db / 2, atol=0.1)


def test_bands_add_up_and_what_does_not_fit_below_the_nyquist_frequency_is_left_out() -> None:
    both = Augmentation(bands=((300.0, 5.0, 1.0), (3000.0, -5.0, 1.0)))
    hz = [50.0, 300.0, 900.0, 3000.0, 10000.0]
    apart = sum(impulse_response_db(Augmentation(bands=(band,)), hz) for band in both.bands)
    np.testing.assert_allclose(impulse_response_db(both, hz), apart, atol=1e-3)
    audio = noise(2000)
    high = Augmentation(bands=((3600.0, 6.0, 1.0), (12000.0, 6.0, 1.0)), low_pass_hz=4000.0)
    np.testing.assert_array_equal(augment(audio, 8000, high, False), audio)


@pytest.mark.parametrize("hz", [4000.0, 9000.0, 16000.0])
def test_the_low_pass_is_3_db_down_at_its_corner(hz: float) -> None:
    gains = impulse_response_db(Augmentation(low_pass_hz=hz), [10.0, hz / 4, hz])
    np.testing.assert_allclose(gains, [0, 0, 20 * np.log10(np.sqrt(0.5))], atol=0.01)
    assert impulse_response_db(Augmentation(low_pass_hz=hz), [min(2 * hz, 21500.0)]) < -23


def test_filters_do_not_start_anew_within_long_audio() -> None:
    audio = noise((1 << 20) + 500, 1)
    out = augment(audio, RATE, Augmentation(bands=((80.0, 6.0, 1.0),)), False)
    tail = augment(audio[:, (1 << 19) :], RATE, Augmentation(bands=((80.0, 6.0, 1.0),)), False)
    np.testing.assert_allclose(out[:, -1000:], tail[:, -1000:], atol=1e-6)


@pytest.mark.parametrize("speed_percent", range(80, 121))
@pytest.mark.parametrize("samples", [0, 1, 59, 60, 3000, 123456789])
def test_the_length_is_exact(speed_percent: int, samples: int) -> None:
    assert augmented_length(samples, Augmentation(speed=speed_percent / 100)) == -(-samples * 100 // speed_percent)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize(("speed", "semitones"), [(0.8, 0.0), (1.2, 4.0), (0.5, 12.0), (2.0, -12.0)])
@pytest.mark.parametrize("drums", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 17, 400, 0.399])
def test_whatever_goes_in_finite_comes_out_finite(
    rate: int, speed: float, semitones: float, drums: bool, samples: float
) -> None:
    samples = samples if isinstance(samples, int) else round(samples * rate)
    full = Augmentation(**{**asdict(ALL), "speed": speed, "semitones": semitones})
    kinds = {
        "noise": noise(samples),
        "square": np.sign(noise(samples, 1)),
        "dc": np.ones((1, samples), np.float32),
        "denormal": np.full((2, samples), 1e-44, np.float32),
        "largest": noise(samples) * np.finfo(np.float32).max,
        "silence": np.zeros((2, samples), np.float32),
    }
    for kind, audio in kinds.items():
        before = audio.copy()
        out = augment(audio, rate, full, drums)
        assert out.dtype == np.float32 and out.shape == (len(audio), augmented_length(samples, full)), kind
        assert np.isfinite(out).all() and (kind != "silence" or not out.any()), kind
        np.testing.assert_array_equal(audio, before)


def test_other_shapes_are_refused() -> None:
    for shape in ((100,), (3, 100), (0, 100)):
        with pytest.raises(ValueError, match="1 or 2 channels"):
            augment(np.zeros(shape, np.float32), RATE, Augmentation(), False)


def test_what_was_written_down_is_made_again() -> None:
    audio = noise(RATE) * np.linspace(1, 0, RATE, dtype=np.float32)
    again = augment(audio, RATE, Augmentation.from_json(ALL.to_json()), False)
    assert again.tobytes() == augment(audio, RATE, ALL, False).tobytes()


def test_another_process_makes_the_same() -> None:
    script = (
        "import hashlib, numpy as np; from prep.stages.augment import *;"
        "audio = np.random.default_rng(3).uniform(-1, 1, (2, 30000)).astype(np.float32);"
        f"print(hashlib.sha256(augment(audio, 44100, Augmentation.from_json('{ALL.to_json()}'), False)).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1 and len(runs.pop()) == 65


bands = st.tuples(st.floats(20, 20000), st.floats(-24, 24), st.floats(0.1, 10))


@given(
    augmentation=st.builds(
        Augmentation,
        speed=st.floats(0.5, 2),
        semitones=st.floats(-12, 12),
        pitch_drums=st.booleans(),
        polarity=st.booleans(),
        swap=st.booleans(),
        bands=st.lists(bands, max_size=4).map(tuple),
        low_pass_hz=st.floats(0, 20000),
    )
)
@settings(deadline=None)
def test_json_there_and_back(augmentation: Augmentation) -> None:
    assert Augmentation.from_json(augmentation.to_json()) == augmentation
    assert Augmentation().to_json() == "{}"


def drawn(count: int = 4000, **changed: float) -> list[Augmentation]:
    rng = np.random.default_rng(1)
    return [draw_augmentation(Augment(renditions=1, **changed), rng) for _ in range(count)]


def test_draws_come_as_often_and_lie_where_the_settings_say() -> None:
    all_drawn, settings_ = drawn(), Augment()
    count = len(all_drawn)
    used = {
        # one step of 41 (half as wide at the ends) is 1.0, one of 9 is no semitones
        "speed": (sum(a.speed != 1 for a in all_drawn), settings_.speed_probability * 39 / 40),
        "pitch": (sum(a.semitones != 0 for a in all_drawn), settings_.pitch_probability * 8 / 9),
        "polarity": (sum(a.polarity for a in all_drawn), settings_.polarity_probability),
        "swap": (sum(a.swap for a in all_drawn), settings_.swap_probability),
        "eq": (sum(len(a.bands) == 3 for a in all_drawn), settings_.eq_probability),
        "low-pass": (sum(a.low_pass_hz > 0 for a in all_drawn), settings_.low_pass_probability),
    }
    for name, (times, probability) in used.items():
        assert abs(times - count * probability) < 4 * np.sqrt(count * probability * (1 - probability)), name
    assert {round(a.speed * 100) for a in all_drawn} == set(range(80, 121))
    assert {a.semitones for a in all_drawn} == set(range(-4, 5))
    assert all(4000 <= a.low_pass_hz <= 16000 for a in all_drawn if a.low_pass_hz)
    ranges_hz = ((60, 300), (300, 3000), (3000, 12000))
    for a in all_drawn:
        for (hz, db, q), (low, high) in zip(a.bands, ranges_hz, strict=False):
            assert low <= hz <= high and abs(db) <= 6 and 0.5 <= q <= 2


def test_no_setting_moves_the_draw_of_another() -> None:
    plain = drawn(200)
    for name in ("speed", "pitch", "polarity", "swap", "eq", "low_pass"):
        fields = {"pitch": "semitones", "eq": "bands", "low_pass": "low_pass_hz"}
        left_out = fields.get(name, name)
        for before, after in zip(plain, drawn(200, **{f"{name}_probability": 0.0}), strict=True):
            assert asdict(after) == {**asdict(before), left_out: asdict(Augmentation())[left_out]}


def test_stem_gains_fill_their_range() -> None:
    rng = np.random.default_rng(0)
    gains = [draw_stem_gain_db(Augment(stem_gain_db=3.0), rng) for _ in range(2000)]
    assert all(abs(gain) <= 3 and gain == round(gain, 2) for gain in gains)
    assert min(gains) < -2.9 and max(gains) > 2.9 and abs(np.mean(gains)) < 4 * 3 / np.sqrt(3 * 2000)
    assert draw_stem_gain_db(Augment(stem_gain_db=0.0), rng) == 0


def test_a_rendition_is_heard_where_that_can_be() -> None:
    wanted = Augment(eq_probability=0.0)
    drawn = [draw_heard(wanted, np.random.default_rng(seed)) for seed in range(300)]
    assert all(each.is_heard for each in drawn)
    assert not all(draw_augmentation(wanted, np.random.default_rng(seed)).is_heard for seed in range(300))
    none = wanted.model_copy(update={"speed_probability": 0.0, "pitch_probability": 0.0, "low_pass_probability": 0.0})
    assert not draw_heard(none, np.random.default_rng(0)).is_heard


@pytest.mark.parametrize(
    "text", ['{"speed": "fast"}', '{"bands": [[1, 2]]}', "[1]", "7", '{"tempo": 1.0}', "{", "null"]
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Augmentation.from_json(text)
