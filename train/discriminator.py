"""The critic: does this accompaniment belong to this mix? One logit a crop, from five resolutions of fixed width.

Convolutions are not causal. Blocks, activation and initialisation as R3GAN (arXiv 2501.05441), in one dimension; no
normalisation anywhere; the class scales each block's input, "similar to AdaLN but with no normalisation" (LiveBand).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import config
from train.conditions import Vector


def _conv(inputs: int, outputs: int, kernel: int, groups: int, gain: float) -> nn.Conv1d:
    conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(inputs // groups * kernel))
    return conv


class BiasedLeaky(nn.Module):
    """leaky_relu(x + b, 0.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias, 0.2)


class Block(nn.Module):
    """x + Conv1(act(GroupedConv3(act(Conv1(x * (1 + W c)))))), the group conv twice as wide; `gain` is Fix-up's."""

    def __init__(self, width: int, groups: int, gain: float) -> None:
        super().__init__()
        self.scale = nn.Linear(width, width)
        self.branch = nn.Sequential(
            _conv(width, 2 * width, 1, 1, gain),
            BiasedLeaky(2 * width),
            _conv(2 * width, 2 * width, 3, groups, gain),
            BiasedLeaky(2 * width),
            _conv(2 * width, width, 1, 1, 0.0),
        )
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.branch(x * (1 + self.scale(condition)[..., None]))


def halve(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 and every second frame: (B, C, T) -> (B, C, T / 2), T even."""
    padded = F.pad(x, (1, 0))
    return (padded[..., 0:-2:2] + 2 * padded[..., 1:-1:2] + padded[..., 2::2]) / 4


class Discriminator(nn.Module):
    """For crops of `frames`, a multiple of 2 ** (levels - 1). Class number `classes` is the null class; `vector_dim` is
    that of a conditioning vector beside it, 0 for none."""

    def __init__(self, c: config.Discriminator, dim: int, classes: int, frames: int, vector_dim: int = 0) -> None:
        super().__init__()
        self.levels = c.levels
        count = c.levels * c.blocks_per_level
        # R3GAN: He's gain for leaky_relu(0.2), times L ** (-1 / (2 m - 2)) with m = 3 convolutions a block
        gain = math.sqrt(2 / (1 + 0.2**2)) * count ** (-1 / 4)
        last = frames // 2 ** (c.levels - 1)
        self.instrument = nn.Embedding(classes + 1, c.width)
        self.vector = Vector(vector_dim, c.width) if vector_dim else None
        self.inputs = _conv(2 * dim, c.width, 1, 1, 1.0)
        self.blocks = nn.ModuleList(Block(c.width, c.groups, gain) for _ in range(count))
        self.basis = nn.Conv1d(c.width, c.width, last, groups=c.width, bias=False)
        self.logit = nn.Linear(c.width, 1, bias=False)
        nn.init.normal_(self.basis.weight, std=last**-0.5)
        nn.init.normal_(self.logit.weight, std=c.width**-0.5)

    def forward(self, accompaniment: Tensor, mix: Tensor, instrument: Tensor, vector: Tensor | None = None) -> Tensor:
        """Two (B, frames, dim) and (B,) int64 -> logits (B,). `vector` (B, vector_dim); see conditions.Vector."""
        condition = self.instrument(instrument)
        if self.vector is not None:
            condition = condition + self.vector(vector)
        x = self.inputs(torch.cat([accompaniment, mix], dim=-1).transpose(1, 2))
        a_level = len(self.blocks) // self.levels
        for number, block in enumerate(self.blocks):
            x = halve(x) if number and number % a_level == 0 else x
            x = block(x, condition)
        return self.logit(self.basis(x)[..., 0])[:, 0].float()  # losses and gaps are not rounded to bfloat16
