"""What the player hears: any rate, any channels and any level, made what the codec takes, a block at a time.

Audio is float32 (channels, samples). Nothing here looks at more than a block, so that hours of it take no more memory
than a second.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy import signal

from prep.codecs import CodecIdentity

Audio = NDArray[np.float32]
MIX_LUFS = -18.0  # the middle of what was trained on: there, mixes lie within 6 dB of it
SILENCE_LUFS = -60.0  # nobody plays so softly: what is below is an open input

# BS.1770-4's K-weighting as De Man gives it: gain in dB, Q, Hz
_SHELF, _HIGH_PASS = (
    (3.99984385397, 0.7071752369554193, 1681.9744509555319),
    (0.0, 0.5003270373253953, 38.13547087613982),
)
_STEPS_A_SECOND, _STEPS_A_BLOCK = 10, 4
_OFFSET_DB, _GATE_LUFS, _GATE_LU = -0.691, -70.0, -10.0


class Resampler:
    """(channels, samples) from one rate to another, in blocks; what comes out is late by some 20 ms, until `last`."""

    def __init__(self, rate: int, wanted: int, channels: int) -> None:
        self._stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32") if rate != wanted else None

    def __call__(self, block: Audio, last: bool = False) -> Audio:
        if self._stream is None:
            return block
        return np.ascontiguousarray(self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T)


class Fit:
    """Blocks of one source, at the codec's rate and with its channels; `notes` say what is done for that."""

    def __init__(self, rate: int, channels: int, wanted: CodecIdentity) -> None:
        self._channels, self._alike = wanted.channels, channels != wanted.channels
        self._resample = Resampler(rate, wanted.sample_rate, 1 if self._alike else channels)
        self.notes: list[str] = []
        if rate != wanted.sample_rate:
            self.notes.append(f"the mix was resampled from {rate} Hz to the codec's {wanted.sample_rate} Hz")
        if self._alike:
            self.notes.append(
                f"the mix's {channels} channels were averaged to one, on all {wanted.channels} of the codec's"
            )

    def __call__(self, block: Audio, last: bool = False) -> Audio:
        if not self._alike:
            return self._resample(block, last)
        return np.repeat(self._resample(block.mean(axis=0, keepdims=True), last), self._channels, axis=0)


class Meter:
    """Integrated loudness (ITU-R BS.1770-4, all channels of weight 1) of what was fed so far, in LUFS."""

    def __init__(self, rate: int, channels: int) -> None:
        filters = IIRfilter(*_SHELF, rate, "high_shelf_DeMan"), IIRfilter(*_HIGH_PASS, rate, "high_pass_DeMan")
        self._sections = np.array([[*each.b, *each.a] for each in filters])
        self._state = np.zeros((2, channels, 2))
        self._step = rate // _STEPS_A_SECOND
        self._left = np.zeros((channels, 0))
        self._energies = array("d")  # of each step of 100 ms: all that is kept

    def feed(self, block: Audio) -> None:
        if not block.size:  # which scipy takes amiss
            return
        weighted, self._state = signal.sosfilt(self._sections, block, axis=1, zi=self._state)
        seen = np.concatenate([self._left, weighted], axis=1)
        whole = seen.shape[1] // self._step * self._step
        steps = seen[:, :whole].reshape(len(seen), -1, self._step)
        self._energies.extend(np.square(steps).sum(axis=(0, 2)).tolist())
        self._left = seen[:, whole:]

    @property
    def lufs(self) -> float:
        """-inf where nothing was loud enough to count. Less than 400 ms are one block."""
        energies = np.array(self._energies)
        if len(energies) < _STEPS_A_BLOCK:
            energies = np.append(energies, np.square(self._left).sum())
            samples = self._step * len(self._energies) + self._left.shape[1]
        else:
            samples = self._step * _STEPS_A_BLOCK
        power = sliding_window_view(energies, min(len(energies), _STEPS_A_BLOCK)).sum(axis=1) / max(samples, 1)
        loud = power[power > 10 ** ((_GATE_LUFS - _OFFSET_DB) / 10)]
        if not len(loud):
            return -math.inf
        return _OFFSET_DB + 10 * math.log10(loud[loud > 10 ** (_GATE_LU / 10) * loud.mean()].mean())


def gain_db(lufs: float) -> float:
    """What brings a mix of this loudness to MIX_LUFS; 0 for silence, which nothing lifts."""
    return MIX_LUFS - lufs if lufs > SILENCE_LUFS else 0.0


def level_note(lufs: float) -> str:
    gain = gain_db(lufs)
    if not gain:
        return f"the mix was heard as it is, at {lufs:.1f} LUFS"
    return f"the mix was taken to be at {lufs:.1f} LUFS and heard {gain:+.1f} dB louder, at {MIX_LUFS:g} as in training"
