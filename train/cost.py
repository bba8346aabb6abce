"""What a step costs in floating-point operations, counted before it is taken; a multiply-add is two."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.config import Config
from train.game import networks
from train.losses import penalty_weights


def flops_a_step(config: Config, dim: int, classes: int) -> float:
    """Of a whole batch, on all processes together, averaged over steps with and without penalty.

    From one forward pass of each network, F_G and F_D: a backward pass costs twice as much, half of it for inputs.
    D's step: G forward, D forward and backward on two sides, F_G + 6 F_D; and 3 F_D for each penalty (the gradient for
    inputs, and the backward pass through that). G's step: G forward and backward, D forward on two sides and back to
    one's inputs, 3 F_G + 3 F_D. The counter's own sums of backward passes take no account of grouped convolutions.
    """
    crop, every = config.batches.crop_frames, config.optimiser.penalty_every
    with torch.device("meta"):
        generator, discriminator = networks(config, dim, classes)
        latents, instrument = torch.empty(1, crop, dim), torch.zeros(1, dtype=torch.int64)
        noise = torch.empty(1, crop, config.generator.noise_dim)
        once = _flops(generator, latents, noise, instrument), _flops(discriminator, latents, latents, instrument)
    penalties = sum(len(penalty_weights(step, every)) for step in range(every)) / every
    return config.batches.batch_size * (4 * once[0] + (9 + 3 * penalties) * once[1])


@torch.no_grad()
def _flops(network: nn.Module, *inputs: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops()
