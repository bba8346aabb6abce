"""The game, after R3GAN (arXiv 2501.05441): relativistic logits, and zero-centred gradient penalties on both sides.

x real accompaniment, x' generated, c what both share (mix and class); logits are (B,), paired by batch index.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean softplus(-(D(x, c) - D(x', c)))."""
    return F.softplus(fake - real).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean softplus(-(D(x', c) - D(x, c)))."""
    return F.softplus(real - fake).mean()


def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """mean_i ||dD/dx_i||^2, differentiable: R1 at real, R2 at (detached) generated inputs (B, frames, dim).

    The gradient is with respect to the accompaniment alone; the mix is the condition that both sides share.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)  # no cross terms: D has no batch norm
    return gradient.square().sum(dim=(1, 2)).mean()


def penalty_weights(step: int, every: int) -> dict[str, float]:
    """Which penalties this step pays, and their factor on gamma / 2; over 2 * every steps each averages 1.

    every = 1 is R3GAN: both, always. Else LiveBand's lazy form: every so many steps one of them, in turns.
    """
    if every == 1:
        return {"r1": 1.0, "r2": 1.0}
    if step % every:
        return {}
    return {"r1" if step // every % 2 == 0 else "r2": 2.0 * every}
