"""Frequency weightings as recursive filters, and the energy of what they let through.

A filter is second-order sections as scipy has them, (sections, 6) float64. Energies are sums of squares.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from prep.stages.blockwise import UNIT, BlockFilter

Sections = NDArray[np.float64]

# IEC 61672-1:2013 Annex E, equations E.1 to E.8 in the usual rounding: poles of the A-weighting, in Hz
_POLES_HZ = (20.598997, 107.65265, 737.86223, 12194.217)
_MIN_RATE_HZ = 8000

# ITU-R BS.1770-4 Annex 1, tables 1 and 2: b0 b1 b2 a0 a1 a2 at 48 kHz
_SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585)
_HIGH_PASS = (1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621)

# Samples filtered at a time: enough to outweigh a call's cost, few enough for BLAS to stay on one thread (blockwise.py
# says why), and memory does not grow with the length
_CHUNK_SAMPLES = 1 << 17
# A state below this (-600 dB) is nothing; left alone it would decay into denormals, which some CPUs crawl through
_NOTHING = 1e-30
# Far above any float32, and its square is still a number
_AS_GOOD_AS_INFINITE = 1e100


@lru_cache(maxsize=64)
def a_weighting(rate: int) -> Sections:
    """The A-weighting of IEC 61672-1, 0 dB at 1 kHz; within 0.15 dB of its curve to 16 kHz at 44.1 kHz."""
    _check_rate(rate)
    low, lower_middle, upper_middle, high = _POLES_HZ
    sections = np.stack([_two_high_passes(low, low, rate), _two_high_passes(lower_middle, upper_middle, rate)])
    sections = np.vstack([sections, _double_low_pass(high, rate)])
    _, response = signal.freqz_sos(sections, worN=[1000.0], fs=rate)
    sections[0, :3] /= abs(response[0])
    return sections


@lru_cache(maxsize=64)
def a_weighting_in_blocks(rate: int) -> BlockFilter:
    """The same, faster, with last bits that differ from processor to processor."""
    return BlockFilter(a_weighting(rate))


@lru_cache(maxsize=64)
def k_weighting_in_blocks(rate: int) -> BlockFilter:
    """`k_weighting`, faster, with last bits that differ from processor to processor."""
    return BlockFilter(k_weighting(rate))


def _two_high_passes(first_hz: float, second_hz: float, rate: int) -> NDArray[np.float64]:
    """Bilinear transform, prewarped at each pole: far above its pole the warping cannot be seen."""
    warped = np.tan(np.pi * np.array([first_hz, second_hz]) / rate)
    gain = 1 / np.prod(1 + warped)
    poles = (1 - warped) / (1 + warped)
    return np.concatenate([gain * np.array([1.0, -2.0, 1.0]), np.poly(poles)])


def _double_low_pass(pole_hz: float, rate: int) -> NDArray[np.float64]:
    """Two poles near Nyquist, where the bilinear transform would lose 3 dB and more at 16 kHz.

    Poles by impulse invariance; zeros by least squares on the relative power response, which is linear in
    cos^2(w/2), sin^2(w/2) and sin^2(w) (the idea of Vicanek, "Matched second order digital filters", 2016).
    """
    pole = np.exp(-2 * np.pi * pole_hz / rate)
    # Up to 0.92 of Nyquist: a digital response is flat at Nyquist and the analogue one is not, so the rest is given up
    w = np.pi * np.linspace(0.0, 0.92, 200)
    analogue_power = (1 + (w * rate / (2 * np.pi * pole_hz)) ** 2) ** -2
    wanted = (1 + pole**2 - 2 * pole * np.cos(w)) ** 2 * analogue_power
    basis = np.stack([np.cos(w / 2) ** 2, np.sin(w / 2) ** 2, np.sin(w) ** 2], axis=1)
    at_zero, at_nyquist, rest = np.linalg.lstsq(basis / wanted[:, None], np.ones_like(w), rcond=None)[0]
    # The b with (b0 + b1 + b2)^2 = at_zero, (b0 - b1 + b2)^2 = at_nyquist and -4 b0 b2 = rest
    even = (np.sqrt(at_zero) + np.sqrt(at_nyquist)) / 2
    b0 = (even + np.sqrt(even**2 + rest)) / 2
    b1 = (np.sqrt(at_zero) - np.sqrt(at_nyquist)) / 2
    return np.array([b0, b1, -rest / (4 * b0), 1.0, -2 * pole, pole**2])


@lru_cache(maxsize=64)
def k_weighting(rate: int) -> Sections:
    """The K-weighting of BS.1770-4: its 48 kHz filters, moved to `rate` with their corner frequencies kept.

    The high-pass's numerator is 1 -2 1 at every rate, as the standard prints it and as meters have it.
    """
    _check_rate(rate)
    shelf, high_pass = _moved(np.array(_SHELF), rate), _moved(np.array(_HIGH_PASS), rate)
    high_pass[:3] = _HIGH_PASS[:3]
    return np.stack([shelf, high_pass])


def _moved(section: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """A section designed at 48 kHz, redesigned: with s = (1 - 1/z)/(1 + 1/z), s becomes s * tan(w48/2) / tan(w/2)."""
    d0, _, d2 = _in_s(section[3:])
    corner_48 = np.sqrt(d0 / d2)
    scale = corner_48 / np.tan(np.arctan(corner_48) * 48000 / rate)
    moved = [_in_z(_in_s(half) * scale ** np.arange(3)) for half in (section[:3], section[3:])]
    return np.concatenate(moved) / moved[1][0]


def _in_s(c: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([c[0] + c[1] + c[2], 2 * (c[0] - c[2]), c[0] - c[1] + c[2]]) / 4


def _in_z(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([d[0] + d[1] + d[2], 2 * (d[0] - d[2]), d[0] - d[1] + d[2]])


def _check_rate(rate: int) -> None:
    if rate < _MIN_RATE_HZ:
        raise ValueError(f"sample rate {rate} Hz is too low to weight; it must be at least {_MIN_RATE_HZ} Hz")


def checked_chunks(audio: NDArray[np.floating]) -> Iterator[tuple[NDArray[np.floating], float]]:
    """(channels, samples) in chunks that stay in cache while they are measured, each with its sample peak.

    Raises ValueError on NaN, infinity and float64 whose squares would be, or if audio is not 2-D.
    """
    if audio.ndim != 2 or len(audio) == 0:
        raise ValueError(f"audio has shape {audio.shape}; (channels, samples) is wanted")
    for start in range(0, audio.shape[1], _CHUNK_SAMPLES):
        chunk = audio[:, start : start + _CHUNK_SAMPLES]
        peak = max(float(chunk.max()), -float(chunk.min()))
        if not peak < _AS_GOOD_AS_INFINITE:
            raise ValueError("audio holds NaN or infinity")
        yield chunk, peak


def weighted_energies(
    audio: NDArray[np.floating], weighting: Sections | BlockFilter, edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`Energies` of a whole (channels, samples). Raises ValueError as `checked_chunks` does."""
    energies = Energies(weighting, edges, len(audio))
    for chunk, _ in checked_chunks(audio):
        energies.feed(chunk)
    return energies.sums


class Energies:
    """Energy of a weighted stream between consecutive edges, from chunks of any length: `sums`, float64 (edges - 1,).

    Energies are summed over the channels. `edges` are sample indices, rising, the first one 0: the filter starts at
    rest there, and what comes after the last one is not filtered. Filtering runs in float64.
    """

    def __init__(self, weighting: Sections | BlockFilter, edges: NDArray[np.int64], channels: int) -> None:
        self._blocks = weighting if isinstance(weighting, BlockFilter) else None
        # scipy wants its sections writable; the cached ones stay as they are
        self._sections = np.array(weighting.sections if isinstance(weighting, BlockFilter) else weighting)
        self._edges = edges
        self._state = np.zeros((channels, len(self._sections), 2))
        self._seen = 0
        self.sums = np.zeros(len(edges) - 1)

    def feed(self, chunk: NDArray[np.floating]) -> None:
        """The next (channels, any number of samples), finite."""
        chunk = chunk[:, : max(0, int(self._edges[-1]) - self._seen)]
        whole = chunk.shape[1] - chunk.shape[1] % UNIT if self._blocks else 0
        for part in (chunk[:, :whole], chunk[:, whole:]):
            if part.shape[1] and (self._state.any() or part.any()):
                self._add(part)
            self._seen += part.shape[1]

    def _add(self, part: NDArray[np.floating]) -> None:
        first = int(np.searchsorted(self._edges, self._seen, "right")) - 1
        last = int(np.searchsorted(self._edges, self._seen + part.shape[1], "left"))
        starts = np.maximum(self._edges[first:last] - self._seen, 0)
        # Channels that are alike, and were until here, are filtered once
        alike = are_alike(part) and are_alike(self._state.reshape(len(part), -1))
        for channel, samples in enumerate(part[:1] if alike else part):
            filtered = self._filtered(samples, channel)
            energies = np.add.reduceat(np.square(filtered, out=filtered), starts)
            self.sums[first:last] += energies * (len(part) if alike else 1)
        if alike:
            self._state[:] = self._state[0]

    def _filtered(self, samples: NDArray[np.floating], channel: int) -> NDArray[np.float64]:
        if self._blocks and len(samples) % UNIT == 0:
            filtered, state = self._blocks(samples, self._state[channel])
        else:
            filtered, state = signal.sosfilt(self._sections, samples, zi=self._state[channel])
        self._state[channel] = np.where(np.abs(state) < _NOTHING, 0.0, state)
        return np.asarray(filtered)


def are_alike(audio: NDArray[np.floating]) -> bool:
    """Whether all channels of (channels, samples) hold the same."""
    return all(np.array_equal(audio[0], other) for other in audio[1:])
