"""Causal windowed attention with a scalar sink, one code path for the whole sequence and for a streaming step.

Axes: B batch, H heads, Q queries, K keys (cached ones first; the queries are the last Q of them), d head dim.
SDPA is the reference; FlexAttention gives the same numbers for a whole sequence, faster where it is compiled for CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Attend = Callable[..., Tensor]  # q, k, v and sinks=(H,) -> (B, H, Q, d)
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


def sees(query: Tensor, key: Tensor, context: int | None) -> Tensor:
    """Whether the frame `query` sees the frame `key`: the last `context` up to itself; all of them if that is None."""
    if context is None:
        return (query >= 0) & (key >= 0)
    return (query - key >= 0) & (query - key < context)


def window(queries: int, keys: int, context: int | None, device: torch.device) -> Tensor:
    """(Q, K) additive mask: 0 where a query sees a key, else -inf."""
    seen = sees(torch.arange(keys - queries, keys, device=device)[:, None], torch.arange(keys, device=device), context)
    return torch.zeros(queries, keys, device=device).masked_fill(~seen, float("-inf"))


def sink_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sinks: Tensor) -> Tensor:
    """sum_j exp(a_j) v_j / (sum_j exp(a_j) + exp(s_h)), a = q k / sqrt(d) + mask: gpt-oss's learned sink.

    The sink is a first key and value of zeros: its score is what the mask adds, s_h, and its value adds nothing.
    q (B, H, Q, d), k and v (B, H, K, d), mask (Q, K), sinks (H,).
    """
    heads, (queries, keys) = len(sinks), mask.shape
    bias = torch.cat([sinks[:, None, None].expand(heads, queries, 1), mask.expand(heads, queries, keys)], dim=-1)
    return F.scaled_dot_product_attention(q, F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0)), attn_mask=bias)


def block_mask(frames: int, context: int | None, device: torch.device) -> BlockMask:
    """`window(frames, frames, …)` as FlexAttention wants it."""
    from torch.nn.attention.flex_attention import create_block_mask  # slow to import, and for CUDA alone

    return create_block_mask(lambda _b, _h, q, k: sees(q, k, context), None, None, frames, frames, device=str(device))


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, sinks: Tensor) -> Tensor:
    """As sink_attention: with l = log sum_j exp(a_j), exp(l) / (exp(l) + exp(s_h)) of what it is without the sink."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    if torch.is_autocast_enabled(q.device.type):  # which does not know it yet
        lower = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(lower), k.to(lower), v.to(lower)
    attended: Any = flex_attention(q, k, v, block_mask=mask, return_aux=AuxRequest(lse=True))
    out, aux = attended
    return out * torch.sigmoid(aux.lse - sinks[:, None])[..., None].to(out.dtype)


class Attention(nn.Module):
    """Multi-head attention with QK-norm, RoPE and a sink a head (LiveBand; norms and biases as CoDiCodec).

    Without a sink, its score is fixed at -inf.
    """

    def __init__(self, width: int, heads: int, context: int, sink: bool) -> None:
        super().__init__()
        self.heads, self.context = heads, context
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-4)
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-4)
        if sink:
            self.sinks = nn.Parameter(torch.zeros(heads))
        else:
            self.register_buffer("sinks", torch.full((heads,), float("-inf")), persistent=False)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, attend: Attend, turn: tuple[Tensor, Tensor], cache: Cache) -> tuple[Tensor, Cache]:
        """x (B, Q, width) and what came before it -> the same shape, and what the next call needs of the past."""
        batch, frames, width = x.shape
        q, k, v = self.qkv(x).view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        exact = self.query_norm.weight.dtype  # under bf16 autocast, q and k come rounded; norms and angles are not
        q, k = rotate(self.query_norm(q.to(exact)), turn), rotate(self.key_norm(k.to(exact)), turn)
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        attended = attend(q, k, v, sinks=self.sinks)
        start = max(0, k.shape[2] - (self.context - 1))
        return self.out(attended.transpose(1, 2).reshape(batch, frames, width)), (k[:, :, start:], v[:, :, start:])
