"""Loudness and true peak against ffmpeg's ebur128 filter, on clips of every kind that reach the codec."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from prep.audio import expand
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs, true_peak

RATES = (16000, 22050, 24000, 32000, 44100, 48000)
KINDS = ("noise", "tones", "bursts", "quiet", "dynamic")


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    """Skips where there is no ffmpeg; under CI=true that is a failure."""
    found = shutil.which("ffmpeg")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("ffmpeg is missing, and loudness cannot be compared with it. On Debian: apt-get install ffmpeg")
    if found is None:
        pytest.skip("ffmpeg is missing. On Debian: apt-get install ffmpeg")
    return found


def clip(number: int) -> tuple[np.ndarray, int]:
    """One of 50 clips, (1 or 2 channels, samples) and its rate: 30 pairs of rate and kind, most of them in both."""
    rng = np.random.default_rng(number)
    rate, kind, channels = RATES[number % 6], KINDS[number % 5], 1 + number // 6 % 2
    # ffmpeg rounds blocks to 0.01 LU, so one may fall on the other side of a gate: among many it moves less than 0.1 LU
    samples = int(rate * rng.uniform(3, 5) * (5 if kind == "dynamic" else 1))
    time = np.arange(samples) / rate
    noise = rng.standard_normal((channels, samples))
    if kind == "noise":
        audio = 10 ** rng.uniform(-2, -0.7) * noise
    elif kind == "tones":
        pitches = rng.uniform(30, 0.45 * rate, (channels, 8, 1))
        audio = rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * pitches * time).sum(axis=1)
    elif kind == "bursts":  # notes that decay, and pauses: both gates act
        beat = time % 0.7
        notes = np.sin(2 * np.pi * rng.uniform(80, 1000, (channels, 1)) * time) + 0.2 * noise
        audio = 0.4 * notes * np.exp(-6 * beat) * (time % 4 < 2.5)
    elif kind == "quiet":  # a few LU to both sides of the absolute gate
        audio = 10 ** (-3.4 + 0.3 * np.sin(2 * np.pi * time / 3)) * noise
    else:  # level wanders over 70 dB
        steps = 10 ** rng.uniform(-3.5, 0, samples // (rate // 3) + 1)
        audio = 0.2 * np.repeat(steps, rate // 3)[:samples] * noise
    return audio.astype(np.float32), rate


def ebur128(ffmpeg: str, audio: np.ndarray, rate: int) -> tuple[float, float]:
    """What ffmpeg measures of (2, samples): integrated loudness in LUFS, to 0.001, and true peak, linear."""
    source = ["-f", "f32le", "-ar", str(rate), "-ac", "2", "-i", "pipe:0"]
    meter = ["-af", "ebur128=metadata=1:peak=true,ametadata=print:file=-", "-f", "null", "-"]
    command = [ffmpeg, "-hide_banner", "-nostats", "-loglevel", "error", *source, *meter]
    said = subprocess.run(command, input=audio.T.astype("<f4").tobytes(), capture_output=True, check=True)
    loudness = re.findall(r"lavfi\.r128\.I=(\S+)", said.stdout.decode())
    peaks = re.findall(r"lavfi\.r128\.true_peaks_ch\d=(\S+)", said.stdout.decode())
    return float(loudness[-1]), max(map(float, peaks[-2:]))


@pytest.fixture(scope="module")
def differences(ffmpeg: str) -> np.ndarray:
    """(50, 2): ours less ffmpeg's, in LU and in dB; NaN where the true peak is too low for ffmpeg's three decimals."""
    rows = []
    for number in range(50):
        made, rate = clip(number)
        audio = expand(made, 2)
        assert isinstance(audio, np.ndarray)
        lufs, peak = ebur128(ffmpeg, audio, rate)
        peaks_apart = 20 * np.log10(true_peak(audio, rate) / peak) if peak > 0.05 else np.nan
        rows.append((integrated_lufs(audio, rate) - lufs, peaks_apart))
    return np.array(rows)


def test_loudness_is_ffmpegs_within_a_tenth(differences: np.ndarray) -> None:
    apart = np.abs(differences[:, 0])
    print(f"\n{len(apart)} clips against ffmpeg's ebur128: at most {apart.max():.4f} LU apart")
    assert len(apart) == 50 and apart.max() < 0.1


def test_true_peak_is_ffmpegs_within_a_fifth(differences: np.ndarray) -> None:
    apart = np.abs(differences[:, 1][np.isfinite(differences[:, 1])])
    print(f"\n{len(apart)} true peaks against ffmpeg's: at most {apart.max():.3f} dB apart")
    assert len(apart) >= 35 and apart.max() < 0.2


def test_silence_is_below_both_gates(ffmpeg: str) -> None:
    silence = np.zeros((2, 44100), np.float32)
    assert integrated_lufs(silence, 44100) == SILENCE_LUFS and ebur128(ffmpeg, silence, 44100)[0] <= -70


def test_the_clips_are_all_that_was_asked_for() -> None:
    seen = {(clip(number)[1], len(clip(number)[0])) for number in range(50)}
    assert seen == {(rate, channels) for rate in RATES for channels in (1, 2)}
