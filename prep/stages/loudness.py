"""Integrated loudness and true peak after ITU-R BS.1770-4, and the gains that follow from them.

Measure what will be encoded: the same signal on two channels is 3 LU louder than on one.
Silence is `SILENCE_LUFS`, a number. Measures raise ValueError on NaN or infinity, and gains on any argument that is
not finite (but -inf LUFS is silence, as other meters have it): neither leaves here.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from prep.stages.weighting import are_alike, checked_chunks, k_weighting_in_blocks, weighted_energies

SILENCE_LUFS = -120.0

# BS.1770-4 Annex 1: offset of equation 2, the two gates of equations 5 to 7, blocks of 400 ms every 100 ms
_OFFSET_DB = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE = 10 ** (-10 / 10)
_STEPS_PER_S = 10
_STEPS_PER_BLOCK = 4

# Interpolation for the true peak: a value between two samples is made from the newest and this many before it
_PAST = 23
_KAISER = 6.0
# Samples looked at together, for whether their peak can matter; then of these, as many in one product
_STRETCH = 64
_RUN = 16

Policy = Literal["equal", "as_recorded"]


def integrated_lufs(audio: NDArray[np.floating], rate: int) -> float:
    """Gated loudness of (channels, samples), one or two channels of weight 1, in LUFS.

    What no block lifts over the absolute gate of -70 LUFS is `SILENCE_LUFS`. Audio shorter than 400 ms is one block of
    its own length: nothing is padded, so a short tone measures as loud as it sounds. Otherwise only whole blocks count,
    as the standard has it. Raises ValueError on NaN, infinity or other channel counts.
    """
    if audio.ndim != 2 or audio.shape[0] not in (1, 2):
        raise ValueError(f"audio has shape {audio.shape}; (1 or 2 channels, samples) is wanted")
    edges = step_edges(audio.shape[1], rate)
    return lufs_of(weighted_energies(audio, k_weighting_in_blocks(rate), edges), edges)


def noted(lufs: float) -> float:
    """A loudness as it is written down and as gains are made of it: processors differ in digits beyond these."""
    return round(lufs, 4)


def step_edges(samples: int, rate: int) -> NDArray[np.int64]:
    """Where the steps of 100 ms begin that gating blocks are made of, and where the last whole one ends.

    Less than a block is one step; no samples are none.
    """
    steps = samples * _STEPS_PER_S // rate
    if steps < _STEPS_PER_BLOCK:
        return np.array([0, samples][: 1 + (samples > 0)], dtype=np.int64)
    return np.arange(steps + 1, dtype=np.int64) * rate // _STEPS_PER_S


def lufs_of(energies: NDArray[np.float64], edges: NDArray[np.int64]) -> float:
    """Gated loudness from each step's K-weighted energy, summed over the channels."""
    width = min(_STEPS_PER_BLOCK, len(energies)) or 1
    if len(energies) < width:
        return SILENCE_LUFS
    # Equation 3: mean square of each gating block
    power = sliding_window_view(energies, width).sum(axis=1) / (edges[width:] - edges[:-width])
    # Equation 4 turned round: gates as powers, so that the logarithm is taken once
    loud = power[power > 10 ** ((_ABSOLUTE_GATE_LUFS - _OFFSET_DB) / 10)]
    if len(loud) == 0:
        return SILENCE_LUFS
    # Equations 6 and 7: the second gate lies 10 LU below the mean of what passed the first
    kept = loud[loud > _RELATIVE_GATE * loud.mean()]
    return _OFFSET_DB + 10 * math.log10(kept.mean())


def true_peak(audio: NDArray[np.floating], rate: int) -> float:
    """The largest magnitude (linear) of the signal that (channels, samples) stand for, never below the samples' own.

    BS.1770-4 Annex 2: four times oversampled, twice from 96 kHz on, not at all from 192 kHz on, and below 44.1 kHz
    more often, to 176.4 kHz as there. Raises ValueError on NaN or infinity.
    """
    found = TruePeak(rate, len(audio))
    for chunk, peak in checked_chunks(audio):
        found.feed(chunk, peak)
    return found.value


class TruePeak:
    """`true_peak` of a stream that comes in chunks; `value` is that of a stream that ends here."""

    def __init__(self, rate: int, channels: int) -> None:
        self._factor = _factor(rate)
        self._past = np.zeros((channels, _PAST), np.float32)
        self._peak = 0.0

    def feed(self, chunk: NDArray[np.floating], peak: float) -> None:
        """The next (channels, any number of samples), finite, and their sample peak."""
        self._peak = max(self._peak, peak)
        seen = np.concatenate([self._past, chunk], axis=1)
        self._past = seen[:, -_PAST:]
        self._peak = self._raised(seen)

    @property
    def value(self) -> float:
        return self._raised(np.pad(self._past, ((0, 0), (0, _PAST))))

    def _raised(self, seen: NDArray[np.floating]) -> float:
        """The peak so far, or what lies higher between the samples of (channels, _PAST + samples)."""
        peak = self._peak
        if self._factor > 1:
            for row in seen[:1] if are_alike(seen) else seen:
                peak = max(peak, _between(row, self._factor, peak))
        return peak


def _between(row: NDArray[np.floating], factor: int, peak: float) -> float:
    """The largest magnitude between the samples of one channel, not looked for where it cannot pass `peak`."""
    phases = _phases(factor)
    samples = len(row) - _PAST
    whole = samples - samples % _STRETCH
    peaks = np.abs(row[:whole]).reshape(-1, _STRETCH).max(axis=1)
    after = np.append(peaks[1:], np.abs(row[whole:][:_PAST]).max())[: len(peaks)]
    # No value is larger than the largest of its samples times the sum of a phase
    loud = np.maximum(peaks, after) > peak / np.abs(phases).sum(axis=0).max()
    stretches = _windows(row, _STRETCH * np.flatnonzero(loud), _STRETCH + _PAST)
    runs = sliding_window_view(stretches, _RUN + _PAST, axis=1)[:, ::_RUN].reshape(-1, _RUN + _PAST)
    rest = _windows(row, np.arange(whole, samples), 1 + _PAST)
    found = (runs @ _run_kernel(factor), rest @ phases)
    return max(float(np.abs(values).max(initial=0.0)) for values in found)


def _windows(row: NDArray[np.floating], starts: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    return row[starts[:, None] + np.arange(width)].astype(np.float64)


def _factor(rate: int) -> int:
    if rate >= 96000:
        return 2 if rate < 192000 else 1
    return max(4, -(-176400 // rate))


@lru_cache
def _phases(factor: int) -> NDArray[np.float64]:
    """Interpolation to `factor` times the rate, (taps, factor - 1): a sinc in a Kaiser window, a column a phase.

    Each makes a value between the two samples in the middle of its taps, and keeps a constant as it is.
    """
    half = (_PAST + 1) // 2
    shift = np.arange(1, factor) / factor + half - 1 - np.arange(_PAST + 1)[:, None]
    phases = np.sinc(shift) * np.i0(_KAISER * np.sqrt(1 - (shift / half) ** 2))
    return np.asarray(phases / phases.sum(axis=0))


@lru_cache
def _run_kernel(factor: int) -> NDArray[np.float64]:
    """The same for a run of samples at once: (_PAST + _RUN, _RUN * phases), so that it is one large product."""
    phases = _phases(factor)
    shifted = [np.pad(phases, ((at, _RUN - 1 - at), (0, 0))) for at in range(_RUN)]
    return np.concatenate(shifted, axis=1)


def gain_to_db(measured_lufs: float, target_lufs: float, max_gain_db: float = 60.0) -> float:
    """The gain that brings a measured loudness to the target, at most `max_gain_db`; silence stays as it is: 0 dB.

    The default never acts on what passed the -70 LUFS gate and goes to a target of -18 or below.
    """
    measured_lufs = _measured(measured_lufs)
    wanted = 0.0 if measured_lufs <= SILENCE_LUFS else target_lufs - measured_lufs
    return min(_finite(wanted, "the gain"), _finite(max_gain_db, "max_gain_db"))


def ceiling_gain_db(peak: float, ceiling_db: float) -> float:
    """The attenuation (0 dB or less) that brings a peak (linear, full scale 1.0) down to the ceiling (dBFS)."""
    if peak <= 0.0:
        return 0.0
    return min(0.0, _finite(ceiling_db - 20 * math.log10(_finite(peak, "the peak")), "ceiling_db"))


def stem_gains_db(
    loudness_lufs: Sequence[float],
    peaks: Sequence[float],
    policy: Policy,
    stem_lufs: float,
    max_gain_db: float,
    ceiling_db: float,
) -> list[float]:
    """Gains for the stems of one multitrack, from each one's loudness and peak (linear).

    "equal": each stem to `stem_lufs`, then under the ceiling on its own; a silent one stays at 0 dB or the ceiling.
    "as_recorded": one gain for all, so that their balance is kept: it brings the loudest stem to `stem_lufs`, or as
    far as the ceiling lets all of them go; 0 dB or the ceiling where all are silent. Gains never exceed `max_gain_db`.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"loudness policy {policy!r} is not known; it must be one of {', '.join(get_args(Policy))}")
    if policy == "as_recorded":
        loudest = max((_measured(lufs) for lufs in loudness_lufs), default=SILENCE_LUFS)
        loudness_lufs = [loudest] * len(loudness_lufs)
    wanted = [gain_to_db(lufs, stem_lufs, max_gain_db) for lufs in loudness_lufs]
    gains = [gain + ceiling_gain_db(peak, ceiling_db - gain) for gain, peak in zip(wanted, peaks, strict=True)]
    return [min(gains)] * len(gains) if policy == "as_recorded" and gains else gains


def _measured(lufs: float) -> float:
    return SILENCE_LUFS if lufs == -math.inf else _finite(lufs, "a loudness")


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}; measure audio that is finite, and use finite settings")
    return value
