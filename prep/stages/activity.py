"""Where a stream sounds: A-weighted short-time RMS at 50 Hz.

Level 0 dB is an RMS of 1.0 (a full-scale sine is at -3.01 dB); the floor is -120 dB.
Frame k covers the samples [floor(k * rate / 50), floor((k + 1) * rate / 50)), and there are
ceil(samples * 50 / rate) frames: the last one is the mean over the samples that exist.
StreamMusicGen (arXiv 2510.22105, A.3) has 50 Hz, A-weighting and -60 dB; its frames overlap, these do not.
"""

import numpy as np
from numpy.typing import NDArray

from prep.stages.weighting import a_weighting_in_blocks, weighted_energies

LEVELS_RATE_HZ = 50
FLOOR_DB = -120.0


def levels_db(audio: NDArray[np.floating], rate: int) -> NDArray[np.float32]:
    """Levels of (channels, samples): float32 (frames,), the mean power over channels, in dB.

    The filter is at rest before the first sample. Raises ValueError on NaN or infinity.
    """
    edges = frame_edges(audio.shape[-1], rate)
    return levels_of(weighted_energies(audio, a_weighting_in_blocks(rate), edges), edges, len(audio))


def frame_edges(samples: int, rate: int) -> NDArray[np.int64]:
    """Where frames begin, and where the last one ends."""
    frames = -(-samples * LEVELS_RATE_HZ // rate)
    return np.minimum(np.arange(frames + 1, dtype=np.int64) * rate // LEVELS_RATE_HZ, samples)


def levels_of(energies: NDArray[np.float64], edges: NDArray[np.int64], channels: int) -> NDArray[np.float32]:
    """From each frame's A-weighted energy, summed over the channels."""
    power = energies / (channels * np.diff(edges))
    return (10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))).astype(np.float32)


def active(levels: NDArray[np.floating], threshold_db: float = -60.0) -> NDArray[np.bool_]:
    """Which frames sound: strictly over the threshold (SMG: -60 dB)."""
    return np.asarray(levels > threshold_db)


def is_silent(levels: NDArray[np.floating], threshold_db: float = -60.0, min_active_s: float = 0.0) -> bool:
    """Whether a stream never sounds, or for less than `min_active_s` in all."""
    active_frames = int(np.count_nonzero(active(levels, threshold_db)))
    return active_frames == 0 or active_frames < min_active_s * LEVELS_RATE_HZ


def has_valid_window(both: NDArray[np.bool_], window_frames: int) -> bool:
    """Whether in some window at least half of the frames are active in mix and target together: `both`, (frames,).

    What is shorter than a window is one window; what is never active has none.
    """
    if not both.any():
        return False
    width = min(window_frames, len(both))
    total = np.concatenate([[0], np.cumsum(both)])
    return bool(2 * (total[width:] - total[:-width]).max() >= width)
