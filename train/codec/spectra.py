"""How much of the spectrum survives, and of the image between the loudspeakers."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

IMAGE_EDGES_HZ = (0, 250, 500, 1000, 2000, 4000, 8000, math.inf)
IMAGE_HOP = 1024


def _spectra(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """(2, samples) -> complex (2, bins, frames)."""
    return torch.stft(audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)


def bandwidth_hz(audio: Tensor, decoded: Tensor, rate: int, within_db: float = 6.0, floor_db: float = 70.0) -> float:
    """Upper edge of the highest band in which `decoded` is as loud as `audio` to `within_db`; both (2, samples).

    Sixth-octave bands from 100 Hz on, power over the whole length. Bands in which `audio` is more than `floor_db` below
    its loudest one do not count: of `audio` against itself this is its own bandwidth. 0 where no band is alike.
    """
    n_fft = 4096
    a, b = (_spectra(x, n_fft, n_fft // 2).abs().square().sum((0, 2)).double() for x in (audio, decoded))
    count = math.floor(6 * math.log2(rate / 2 / 100))
    edges = 100 * 2 ** (torch.arange(count + 1) / 6)
    band = torch.bucketize(torch.arange(n_fft // 2 + 1) * rate / n_fft, edges, right=True)  # 0: below, count + 1: above
    a, b = (torch.zeros(count + 2).double().index_add(0, band, x)[1:-1] for x in (a, b))
    loud = a > a.max() * 10 ** (-floor_db / 10)
    alike = loud & (10 * torch.log10((b + 1e-12) / (a + 1e-12))).abs().le(within_db)
    return float(edges[int(alike.nonzero().max()) + 1]) if alike.any() else 0.0


def image_distance(audio: Tensor, decoded: Tensor, rate: int) -> tuple[float, float]:
    """Mean |difference| of the side-to-mid energy ratio in dB (held within 40 dB either way), and of the correlation
    between the channels; both (2, samples).

    In octave bands (up to 250 Hz, ..., from 8 kHz on) and blocks of a second, where `audio` is less than 60 dB below
    its loudest block and band.
    """
    (ratio, correlation, energy), (other_ratio, other_correlation, _) = (_image(x, rate) for x in (audio, decoded))
    heard = energy > energy.max() * 1e-6
    return tuple(
        float((x - y).abs()[heard].mean()) for x, y in ((ratio, other_ratio), (correlation, other_correlation))
    )  # type: ignore[return-value]


def _image(audio: Tensor, rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Side-to-mid ratio in dB, correlation and energy, each (bands, blocks)."""
    left, right = _spectra(audio, 2048, IMAGE_HOP)
    hertz = torch.arange(len(left)) * rate / 2048
    masks = [(hertz >= low) & (hertz < high) for low, high in itertools.pairwise(IMAGE_EDGES_HZ)]

    def summed(power: Tensor) -> Tensor:
        bands = torch.stack([power[mask].sum(0) for mask in masks])
        return torch.stack([block.sum(1) for block in bands.split(rate // IMAGE_HOP, dim=1)], dim=1) + 1e-9

    mid, side = (summed(((left + sign * right) / 2).abs().square()) for sign in (1, -1))
    both = summed(left.abs().square()) * summed(right.abs().square())
    return (10 * torch.log10(side / mid)).clamp(-40, 40), (mid - side) / both.sqrt(), mid + side
