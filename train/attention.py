"""Causal windowed attention with a scalar sink, one code path for the whole sequence and for a streaming step.

Axes: B batch, H heads, Q queries, K keys (cached ones first; the queries are the last Q of them), d head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = tuple[Tensor, Tensor]  # rotated keys and values of the past, each (B, H, n, d) with n < context


def rotation(start: int, frames: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """RoPE's cosines and sines (frames, d / 2) for positions start, start + 1, ...

    The angles are formed in float64, so that hours into a performance they are as exact as at its start.
    """
    position = torch.arange(start, start + frames, dtype=torch.float64, device=device)
    frequency = 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    angle = torch.outer(position, frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + d/2]) of (B, H, T, d) by its angle."""
    cosine, sine = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


def window(queries: int, keys: int, context: int, device: torch.device) -> Tensor:
    """(Q, K) additive mask: 0 where a query sees a key, the last `context` ones up to itself; else -inf."""
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    distance = query - torch.arange(keys, device=device)
    hidden = (distance < 0) | (distance >= context)
    return torch.zeros(queries, keys, device=device).masked_fill(hidden, float("-inf"))


def sink_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sinks: Tensor) -> Tensor:
    """sum_j exp(a_j) v_j / (sum_j exp(a_j) + exp(s_h)), a = q k / sqrt(d) + mask: gpt-oss's learned sink.

    The sink is a first key and value of zeros: its score is what the mask adds, s_h, and its value adds nothing.
    q (B, H, Q, d), k and v (B, H, K, d), mask (Q, K), sinks (H,).
    """
    heads, (queries, keys) = len(sinks), mask.shape
    bias = torch.cat([sinks[:, None, None].expand(heads, queries, 1), mask.expand(heads, queries, keys)], dim=-1)
    return F.scaled_dot_product_attention(q, F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0)), attn_mask=bias)


class Attention(nn.Module):
    """Multi-head attention with QK-norm, RoPE and a sink a head (LiveBand; norms and biases as CoDiCodec)."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads, self.context = heads, context
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-4)
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-4)
        self.sinks = nn.Parameter(torch.zeros(heads))
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor], cache: Cache) -> tuple[Tensor, Cache]:
        """x (B, Q, width) and what came before it -> the same shape, and what the next call needs of the past."""
        batch, frames, width = x.shape
        q, k, v = self.qkv(x).view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        exact = self.query_norm.weight.dtype  # under bf16 autocast, q and k come rounded; norms and angles are not
        q, k = rotate(self.query_norm(q.to(exact)), turn), rotate(self.key_norm(k.to(exact)), turn)
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        attended = sink_attention(q, k, v, mask, self.sinks)
        start = max(0, k.shape[2] - (self.context - 1))
        return self.out(attended.transpose(1, 2).reshape(batch, frames, width)), (k[:, :, start:], v[:, :, start:])
