"""What may befall a crop on its way to the codec, drawn: equalisers, clipping, a room, another width or speed.

Each takes (2, samples) float32 and a generator, and hands back as many samples.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

Audio = NDArray[np.float32]


def equalise(audio: Audio, rng: np.random.Generator, rate: int) -> Audio:
    """One to three filters out of: shelves and a bell of up to 9 dB either way, a low-pass from 2 kHz up."""
    sections = [_biquad(rng, rate) for _ in range(rng.integers(1, 4))]
    return cast(Audio, scipy.signal.sosfilt(np.array(sections), audio).astype(np.float32))


def _biquad(rng: np.random.Generator, rate: int) -> list[float]:
    """A second-order section (b0 b1 b2 1 a1 a2) by the bilinear transform; formulas: R. Bristow-Johnson's cookbook."""
    kind = rng.choice(["low shelf", "high shelf", "bell", "low-pass"])
    hertz = np.exp(rng.uniform(*np.log((2000, 16000) if kind == "low-pass" else (60, 12000))))
    a = 10 ** (rng.uniform(-9, 9) / 40)
    w = 2 * np.pi * hertz / rate
    cos, alpha = np.cos(w), np.sin(w) / (2 * rng.uniform(0.5, 1.5))
    if kind == "low-pass":
        b, d = [(1 - cos) / 2, 1 - cos, (1 - cos) / 2], [1 + alpha, -2 * cos, 1 - alpha]
    elif kind == "bell":
        b, d = [1 + alpha * a, -2 * cos, 1 - alpha * a], [1 + alpha / a, -2 * cos, 1 - alpha / a]
    else:
        sign = 1 if kind == "low shelf" else -1
        c, root = sign * cos, 2 * np.sqrt(a) * alpha
        b = [a * (a + 1 - (a - 1) * c + root), sign * 2 * a * (a - 1 - (a + 1) * c), a * (a + 1 - (a - 1) * c - root)]
        d = [a + 1 + (a - 1) * c + root, -sign * 2 * (a - 1 + (a + 1) * c), a + 1 + (a - 1) * c - root]
    return [float(x / d[0]) for x in (*b, *d)]


def soft_clip(audio: Audio, rng: np.random.Generator) -> Audio:
    """tanh, with the peak driven to between half and four times its knee; the peak stays where it was."""
    peak = float(np.abs(audio).max())
    if not peak:
        return audio
    drive = rng.uniform(0.5, 4)
    return cast(Audio, (np.tanh(audio * np.float32(drive / peak)) * np.float32(peak / np.tanh(drive))))


def reverberate(audio: Audio, rng: np.random.Generator, rate: int) -> Audio:
    """A room of 0.2 to 1.5 s (RT60), of exponentially decaying noise, 20 to 4 dB below the dry sound."""
    seconds = np.exp(rng.uniform(*np.log((0.2, 1.5))))
    time = np.arange(int(seconds * rate), dtype=np.float32) / np.float32(rate)
    room = rng.standard_normal((2, len(time)), np.float32) * np.exp(-np.float32(np.log(1000) / seconds) * time)
    room *= np.float32(10 ** (rng.uniform(-20, -4) / 20)) / np.sqrt(np.square(room).sum(1, keepdims=True))
    return cast(Audio, audio + scipy.signal.oaconvolve(audio, room, axes=1)[:, : audio.shape[1]].astype(np.float32))


def widen(audio: Audio, rng: np.random.Generator) -> Audio:
    """The difference of the channels by a factor from 0 to 1.5."""
    mid, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2 * np.float32(rng.uniform(0, 1.5))
    return np.stack([mid + side, mid - side])


def pan(audio: Audio, rng: np.random.Generator) -> Audio:
    """At constant power, from half left to half right."""
    angle = rng.uniform(0.25, 0.75) * np.pi / 2
    return cast(Audio, audio * (np.sqrt(2) * np.array([[np.cos(angle)], [np.sin(angle)]])).astype(np.float32))


def change_speed(audio: Audio, ratio: float, samples: int, rate: int) -> Audio:
    """Speed and pitch times `ratio`, as a tape's: about samples * ratio samples become (2, samples)."""
    resampled = soxr.resample(audio.T, round(rate * ratio), rate, quality="MQ").T[:, :samples]
    return np.ascontiguousarray(np.pad(resampled, ((0, 0), (0, samples - resampled.shape[1]))))
