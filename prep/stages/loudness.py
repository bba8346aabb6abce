"""Integrated loudness after ITU-R BS.1770-4, and the gains that follow from it.

Measure what will be encoded: the same signal on two channels is 3 LU louder than on one.
Silence is `SILENCE_LUFS`, a number, so no NaN or infinity can start here.
"""

import numpy as np
from numpy.typing import NDArray

from prep.stages.weighting import k_weighting, weighted_energies

SILENCE_LUFS = -120.0

# BS.1770-4 Annex 1: offset of equation 2, the two gates of equations 5 to 7, blocks of 400 ms every 100 ms
_OFFSET_DB = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE = 10 ** (-10 / 10)
_STEPS_PER_S = 10
_STEPS_PER_BLOCK = 4


def integrated_lufs(audio: NDArray[np.floating], rate: int) -> float:
    """Gated loudness of (channels, samples), one or two channels of weight 1, in LUFS.

    What no block lifts over the absolute gate of -70 LUFS is `SILENCE_LUFS`. Audio shorter than 400 ms is one block of
    its own length: nothing is padded, so a short tone measures as loud as it sounds. Otherwise only whole blocks count,
    as the standard has it. Raises ValueError on NaN, infinity or other channel counts.
    """
    if audio.ndim != 2 or audio.shape[0] not in (1, 2):
        raise ValueError(f"audio has shape {audio.shape}; (1 or 2 channels, samples) is wanted")
    if audio.shape[1] == 0:
        return SILENCE_LUFS
    power = _block_powers(audio, rate)
    # Equation 4 turned round: gates as powers, so that the logarithm is taken once
    loud = power[power > 10 ** ((_ABSOLUTE_GATE_LUFS - _OFFSET_DB) / 10)]
    if len(loud) == 0:
        return SILENCE_LUFS
    # Equations 6 and 7: the second gate lies 10 LU below the mean of what passed the first
    kept = loud[loud > _RELATIVE_GATE * loud.mean()]
    return float(_OFFSET_DB + 10 * np.log10(kept.mean()))


def _block_powers(audio: NDArray[np.floating], rate: int) -> NDArray[np.float64]:
    """Equation 3: mean square of each gating block, summed over the channels."""
    samples = audio.shape[1]
    steps = samples * _STEPS_PER_S // rate
    if steps < _STEPS_PER_BLOCK:
        edges, width = np.array([0, samples], dtype=np.int64), 1
    else:
        edges, width = np.arange(steps + 1, dtype=np.int64) * rate // _STEPS_PER_S, _STEPS_PER_BLOCK
    energies = weighted_energies(audio, k_weighting(rate), edges).sum(axis=0)
    blocks = np.lib.stride_tricks.sliding_window_view(energies, width).sum(axis=1)
    return np.asarray(blocks / (edges[width:] - edges[:-width]))


def gain_to_db(measured_lufs: float, target_lufs: float, max_gain_db: float = 60.0) -> float:
    """The gain that brings a measured loudness to the target, at most `max_gain_db`; silence stays as it is: 0 dB.

    The default never acts on what passed the -70 LUFS gate and goes to a target of -18 or below.
    """
    if measured_lufs <= SILENCE_LUFS:
        return 0.0
    return min(target_lufs - measured_lufs, max_gain_db)


def ceiling_gain_db(peak: float, ceiling_db: float) -> float:
    """The attenuation (0 dB or less) that brings a sample peak (linear, full scale 1.0) down to the ceiling (dBFS)."""
    if peak <= 0.0:
        return 0.0
    return min(0.0, ceiling_db - 20 * float(np.log10(peak)))
