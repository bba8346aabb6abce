"""The player: at each frame, noise and what it hears of the mix in, the accompaniment `anticipation` frames later out.

Latents are normalised (B, frames, dim). No past output is fed back: a sequence is one causal pass, and `forward` is
`step` on the whole of it, so that training is inference. LiveBand (arXiv 2606.03803); details as CoDiCodec's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import config
from train.attention import Attend, Attention, Cache, block_mask, fused_attention, rotation, sink_attention, window
from train.conditions import Vector
from train.errors import RunError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class AdaLN(nn.Module):
    """LayerNorm(x) * (1 + W c), W zero at first; scale only, as CoDiCodec."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(width, width)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-4) * (1 + self.scale(condition)[:, None])


class SwiGLU(nn.Module):
    def __init__(self, width: int, mult: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mult * width, bias=False)
        self.down = nn.Linear(mult * width // 2, width, bias=False)
        nn.init.xavier_uniform_(self.up.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    """x + Attention(AdaLN(x)), then x + SwiGLU(AdaLN(x))."""

    def __init__(self, c: config.Generator) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = AdaLN(c.width), AdaLN(c.width)
        self.attention = Attention(c.width, c.heads, c.context_frames, c.sink)
        self.mlp = SwiGLU(c.width, c.mlp_mult)

    def forward(
        self, x: Tensor, condition: Tensor, attend: Attend, turn: tuple[Tensor, Tensor], cache: Cache
    ) -> tuple[Tensor, Cache]:
        attended, cache = self.attention(self.attention_norm(x, condition), attend, turn, cache)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x, condition)), cache


@dataclass(frozen=True)
class GeneratorState:
    """What a performance has left behind: how many frames it heard, and each block's keys and values."""

    position: int
    caches: tuple[Cache, ...]


class Generator(nn.Module):
    """`dim` is the latent's, `classes` the number of instruments; class number `classes` is the null class.

    `vector_dim` is that of a conditioning vector beside the class, 0 for none. `flex`, once set, is the mask of whole
    sequences for FlexAttention: see `fuse`.
    """

    flex: BlockMask | None = None

    def __init__(self, c: config.Generator, dim: int, classes: int, vector_dim: int = 0) -> None:
        super().__init__()
        self.config, self.dim = c, dim
        self.context = c.context_frames if c.causal else None
        self.instrument = nn.Embedding(classes + 1, c.width)
        self.vector = Vector(vector_dim, c.width) if vector_dim else None
        self.inputs = nn.Linear(dim + c.noise_dim, c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.blocks))
        self.norm = AdaLN(c.width)
        self.outputs = nn.Linear(c.width, dim)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.xavier_uniform_(self.outputs.weight)

    def forward(self, mix: Tensor, noise: Tensor, instrument: Tensor, vector: Tensor | None = None) -> Tensor:
        """mix (B, T, dim), noise (B, T, noise_dim), instrument (B,) int64 -> (B, T, dim), causal in T (unless config
        says otherwise: then each frame hears them all). `vector` (B, vector_dim); see conditions.Vector."""
        return self._play(mix, noise, instrument, vector, self.init_state(len(mix)))[0]

    def fuse(self, frames: int) -> None:
        """From now on `forward` of so many frames goes through FlexAttention, which is to be compiled."""
        self.flex = block_mask(frames, self.context, self.inputs.weight.device)

    def init_state(self, batch: int) -> GeneratorState:
        """Silence before the first frame."""
        c = self.config
        nothing = self.inputs.weight.new_empty(batch, c.heads, 0, c.width // c.heads)
        return GeneratorState(0, ((nothing, nothing),) * c.blocks)

    def step(
        self, mix: Tensor, noise: Tensor, instrument: Tensor, state: GeneratorState, vector: Tensor | None = None
    ) -> tuple[Tensor, GeneratorState]:
        """The next k >= 1 frames of every performance in the batch: shapes as `forward` with T = k.

        Raises RunError where the config is not causal.
        """
        if not self.config.causal:
            raise RunError(
                "generator.causal is false: this generator hears all of a crop before it plays, the upper bound to "
                "compare with, and cannot play frame by frame; play one that was trained with generator.causal true"
            )
        return self._play(mix, noise, instrument, vector, state)

    def _play(
        self, mix: Tensor, noise: Tensor, instrument: Tensor, vector: Tensor | None, state: GeneratorState
    ) -> tuple[Tensor, GeneratorState]:
        c, frames, device = self.config, mix.shape[1], mix.device
        past = state.caches[0][0].shape[2]
        if self.flex is not None and not past and frames == self.flex.seq_lengths[0]:
            attend = partial(fused_attention, mask=self.flex)
        else:
            attend = partial(sink_attention, mask=window(frames, past + frames, self.context, device))
        turn = rotation(state.position, frames, c.width // c.heads, device)
        condition = self.instrument(instrument)
        if self.vector is not None:
            condition = condition + self.vector(vector)
        x = self.inputs(torch.cat([noise, mix], dim=-1))
        caches = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x, after = block(x, condition, attend, turn, cache)
            caches.append(after)
        return self.outputs(self.norm(x, condition)), GeneratorState(state.position + frames, tuple(caches))
