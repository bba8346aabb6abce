"""What the latents are like, for those who model them: a network wants them centred, of one size, and not redundant."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LatentStatistics:
    """Over frames; a number a channel is given as median (lowest to highest), and pairs of channels alike."""

    mean: Tensor  # (dim,)
    variance: Tensor  # (dim,)
    kurtosis: Tensor  # (dim,) excess: 0 for a normal distribution
    correlation: Tensor  # (pairs,) |Pearson's| of each pair of channels


def statistics(latents: Tensor) -> LatentStatistics:
    """Of (frames, dim). A channel that never changes has kurtosis and correlations of 0."""
    x = latents.double()
    centred = x - x.mean(0)
    variance = centred.square().mean(0)
    unit = centred / variance.sqrt().clamp_min(1e-9)
    kurtosis = (unit.pow(4).mean(0) - 3) * (variance > 1e-12)
    matrix = unit.T @ unit / len(x)
    pairs = matrix.abs()[matrix.new_ones(matrix.shape).triu(1) > 0]
    return LatentStatistics(x.mean(0), variance, kurtosis, pairs)
