"""One stream measured in one pass, block by block, so that it need never be in memory as a whole."""

import numpy as np
from numpy.typing import NDArray

from prep.stages.activity import frame_edges, levels_of
from prep.stages.loudness import TruePeak, lufs_of, step_edges
from prep.stages.weighting import Energies, a_weighting_in_blocks, checked_chunks, k_weighting_in_blocks


class Meter:
    """Loudness, levels and peaks of one stream that comes in blocks of any length.

    The numbers are those of `integrated_lufs`, `levels_db` and `true_peak` for the whole. It keeps the energies of the
    stream's frames and nothing else that grows. `samples` is how many will come; the measures raise ValueError before
    all of them have.
    """

    def __init__(self, rate: int, channels: int, samples: int, true_peak: bool = False) -> None:
        if channels not in (1, 2) or samples < 0:
            raise ValueError(f"{channels} channels of {samples} samples cannot be measured; there must be 1 or 2")
        self._channels, self._samples, self._seen = channels, samples, 0
        self._frames, self._steps = frame_edges(samples, rate), step_edges(samples, rate)
        self._a_weighted = Energies(a_weighting_in_blocks(rate), self._frames, channels)
        self._k_weighted = Energies(k_weighting_in_blocks(rate), self._steps, channels)
        self._true_peak = TruePeak(rate, channels) if true_peak else None
        self._peak = 0.0

    def feed(self, block: NDArray[np.floating]) -> None:
        """(channels, any number of samples). Raises ValueError on NaN, infinity, another shape, or too many samples."""
        room = (self._channels, self._samples - self._seen)
        if block.ndim != 2 or len(block) != room[0] or block.shape[1] > room[1]:
            raise ValueError(f"a block has shape {block.shape}; there is room for {room}")
        for chunk, peak in checked_chunks(block):
            self._peak = max(self._peak, peak)
            self._a_weighted.feed(chunk)
            self._k_weighted.feed(chunk)
            if self._true_peak:
                self._true_peak.feed(chunk, peak)
            self._seen += chunk.shape[1]

    def lufs(self) -> float:
        """Integrated loudness in LUFS."""
        self._check_all()
        return lufs_of(self._k_weighted.sums, self._steps)

    def levels_db(self, gain_db: float = 0.0) -> NDArray[np.float32]:
        """Levels at 50 Hz, (frames,), of the stream after a gain."""
        self._check_all()
        return levels_of(self._a_weighted.sums * 10 ** (gain_db / 10), self._frames, self._channels)

    @property
    def peak(self) -> float:
        """The largest magnitude of a sample, linear."""
        self._check_all()
        return self._peak

    @property
    def true_peak(self) -> float:
        """Linear; ValueError where it was not asked for."""
        self._check_all()
        if self._true_peak is None:
            raise ValueError("this meter does not measure true peaks; make it with true_peak=True")
        return self._true_peak.value

    def _check_all(self) -> None:
        if self._seen != self._samples:
            raise ValueError(f"{self._seen} samples of {self._samples} have been fed; measures are of the whole stream")
