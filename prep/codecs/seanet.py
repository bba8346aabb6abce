"""What the causal networks of EnCodec and Mimi are made of, run step by step with explicit state.

The modules are those of `transformers`, which runs them over a whole clip. Here a convolution keeps the input that its
kernel still reaches, a transposed convolution what it has to add to the next step, an LSTM its two vectors. The state
() is "nothing yet": zeros everywhere, or, where a layer says `replicate`, its own first input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prep.codecs.protocol import State


class Carry:
    """A state on its way through a step: each layer takes its part and leaves the next, in the order of the layers."""

    def __init__(self, state: State) -> None:
        self._before = iter(state)
        self.fresh = not state
        self._after: list[Tensor] = []

    def take(self) -> Tensor:
        return next(self._before)

    def leave(self, part: Tensor) -> None:
        self._after.append(part.clone())  # a view would keep the whole step alive

    def state(self) -> State:
        return tuple(self._after)


def through(layers: Iterable[Any], x: Tensor, carry: Carry) -> Tensor:
    """(B, channels, time) through layers of these kinds: convolution, transposed one, LSTM, residual block, ELU."""
    for layer in layers:
        if hasattr(layer, "block"):
            x = _residual(layer, x, carry)
        elif hasattr(layer, "lstm"):
            x = _lstm(layer.lstm, x, carry)
        elif isinstance(layer, (nn.ELU, nn.Identity)):
            x = layer(x)
        elif isinstance(layer.conv, nn.ConvTranspose1d):
            x = transposed(layer.conv, x, carry)
        else:
            x = convolved(layer.conv, x, carry, replicate=layer.pad_mode == "replicate")
    return x


def convolved(conv: nn.Conv1d, x: Tensor, carry: Carry, replicate: bool = False) -> Tensor:
    """The time of x has to be a multiple of the stride."""
    context = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]
    if not context:
        return conv(x)
    if carry.fresh:
        past = x[..., :1].expand(-1, -1, context) if replicate else x.new_zeros(*x.shape[:2], context)
    else:
        past = carry.take()
    seen = torch.cat([past, x], 2)
    carry.leave(seen[..., seen.shape[2] - context :])
    return conv(seen)


def transposed(conv: nn.ConvTranspose1d, x: Tensor, carry: Carry) -> Tensor:
    """All that rings on beyond x waits for the next step."""
    length = x.shape[2] * conv.stride[0]
    out = F.conv_transpose1d(x, conv.weight, None, conv.stride, groups=conv.groups)
    if not carry.fresh:
        ringing = carry.take()
        out[..., : ringing.shape[2]] += ringing
    carry.leave(out[..., length:])
    return out[..., :length] if conv.bias is None else out[..., :length] + conv.bias[:, None]


def _residual(layer: Any, x: Tensor, carry: Carry) -> Tensor:
    inner = through(layer.block, x, carry)
    return through([layer.shortcut], x, carry) + inner


def _lstm(lstm: nn.LSTM, x: Tensor, carry: Carry) -> Tensor:
    steps = x.permute(2, 0, 1)
    before = None if carry.fresh else (_swapped(carry.take()), _swapped(carry.take()))
    out, after = lstm(steps, before)
    for part in after:
        carry.leave(_swapped(part))
    return (out + steps).permute(1, 2, 0)


def _swapped(part: Tensor) -> Tensor:
    """A state's first axis is the batch, an LSTM's the layers."""
    return part.transpose(0, 1).contiguous()


def fuse_weight_norm(network: nn.Module) -> None:
    """So that weights are not computed anew in every step, and the network can be sent to another process."""
    for module in network.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
            module._load_state_dict_pre_hooks.clear()  # a local function of torch's, for files of older names


def nearest(x: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Residual quantiser: (B, T, dim) by codebooks (size, dim) in turn -> tokens (B, T, codebooks).

    In float64 the nearest one does not hang on the rounding of a step's or batch's shape.
    """
    tokens = []
    for codebook in codebooks:
        distances = codebook.square().sum(1) - 2 * (x @ codebook.T)
        tokens.append(distances.argmin(2))
        x = x - F.embedding(tokens[-1], codebook)
    return torch.stack(tokens, 2)


def from_tokens(tokens: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The sum of what the tokens (B, T, codebooks) stand for: (B, T, dim)."""
    parts = [F.embedding(tokens[..., k], codebook) for k, codebook in enumerate(codebooks)]
    return torch.stack(parts).sum(0)


def check_causal(config: Any) -> None:
    """Raises ValueError for a network that hears the future."""
    whole = {"use_causal_conv": True, "trim_right_ratio": 1.0}
    for name, needed in whole.items():
        if (found := getattr(config, name)) != needed:
            raise ValueError(f"{name} is {found}; only the causal network, where it is {needed}, is adapted")
