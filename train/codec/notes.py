"""Which onsets and pitches of the MIDI that a mix was rendered from can still be found in the decoded mix.

Onsets and pitches are looked for in the same way in the original and in what was decoded; those that cannot be found
in the original do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.codec.measures import log_mel

NEAR_S = 0.05  # an onset counts as found at this distance
FLUX_HOP = 256
FLUX_RISE = 0.05  # log10 of magnitude, mean over bands
TONE_SAMPLES = 16384
TONE_OVER_MEDIAN = 10**1.2  # of power: 12 dB
LOWEST_HZ, HIGHEST_HZ = 100.0, 4000.0


@dataclass(frozen=True)
class Notes:
    """All notes of a mix: onsets in seconds, and MIDI pitches, -1 for drums."""

    onsets_s: NDArray[np.float64]
    pitches: NDArray[np.int64]


def onsets_of(audio: Tensor, rate: int) -> NDArray[np.float64]:
    """Onsets in seconds of (2, samples), by spectral flux.

    The flux is the mean rise of 40 log-mel bands (windows of 1024 samples) over 512 samples. An onset is the greatest
    flux within 46 ms either way, that is more than 0.05 (1 dB) above its mean within 100 ms.
    """
    level = log_mel(audio.mean(0), rate, 1024, FLUX_HOP, 40, floor=0.1)[0]
    flux = F.pad((level[2:] - level[:-2]).clamp_min(0).mean(1), (1, 1))[None, None]
    greatest = F.max_pool1d(flux, 17, 1, 8)
    usual = F.avg_pool1d(flux, 35, 1, 17, count_include_pad=False)
    found = ((flux == greatest) & (flux > usual + FLUX_RISE))[0, 0]
    return found.nonzero()[:, 0].numpy() * (FLUX_HOP / rate)


def _near(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each of `times` whether one of `others` is within NEAR_S."""
    if not len(others):
        return np.zeros(len(times), bool)
    return np.abs(times[:, None] - others).min(1) <= NEAR_S


def onsets_kept(audio: Tensor, decoded: Tensor, notes: Notes, rate: int) -> tuple[float, float]:
    """Of the notes' onsets that are found in `audio` the share found in `decoded`, and of the onsets found in `decoded`
    the share that `audio` does not have; NaN where there are none."""
    before, after = onsets_of(audio, rate), onsets_of(decoded, rate)
    sounding = np.unique(notes.onsets_s)
    sounding = sounding[_near(sounding, before)]
    kept = _near(sounding, after).mean() if len(sounding) else np.nan
    added = 1 - _near(after, before).mean() if len(after) else np.nan
    return float(kept), float(added)


def tones_found(audio: Tensor, starts: NDArray[np.int64], hertz: NDArray[np.float64], rate: int) -> NDArray[np.bool_]:
    """Whether a tone of each frequency sounds in the 372 ms (at 44.1 kHz) from its start on; `audio` is (2, samples).

    It does if, in the power spectrum of a Hann window, summed over channels, the greatest bin within a quarter tone
    (or one bin) is the greatest within one and a half semitones, and 12 dB above the median within two and a half.
    White noise has such a tone in less than one place out of fifty.
    """
    window = torch.hann_window(TONE_SAMPLES)
    found = np.zeros(len(starts), bool)
    for index, (start, f) in enumerate(zip(starts, hertz, strict=True)):
        spectrum = torch.fft.rfft(audio[:, start : start + TONE_SAMPLES] * window)
        found[index] = _tone_at(spectrum.abs().square().sum(0).numpy(), f * TONE_SAMPLES / rate)
    return found


def _tone_at(power: NDArray[np.float32], at: float) -> bool:
    """`at` is a frequency in bins."""

    def around(semitones: float) -> NDArray[np.float32]:
        reach = max(1.0, at * (2 ** (semitones / 12) - 1))
        return power[round(at - reach) : round(at + reach) + 1]

    peak = around(0.5).max()
    return bool(peak >= around(1.5).max() and peak > TONE_OVER_MEDIAN * np.median(around(2.5)))


def pitches_kept(audio: Tensor, decoded: Tensor, notes: Notes, rate: int) -> float:
    """Of the notes between 100 Hz and 4 kHz whose fundamental is found in `audio`, the share found in `decoded`."""
    hertz = 440 * 2 ** ((notes.pitches - 69) / 12)
    starts = np.round(notes.onsets_s * rate).astype(np.int64)
    usable = (notes.pitches >= 0) & (hertz >= LOWEST_HZ) & (hertz <= HIGHEST_HZ)
    usable &= starts + TONE_SAMPLES <= audio.shape[-1]
    starts, hertz = starts[usable], hertz[usable]
    there = tones_found(audio, starts, hertz, rate)
    kept = tones_found(decoded, starts[there], hertz[there], rate)
    return float(kept.mean()) if len(kept) else float("nan")
