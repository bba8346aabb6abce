"""Mimi (Défossez et al. 2024, arXiv 2410.00037): 24 kHz mono, 12.5 frames a second, causal; weights CC BY 4.0.

Tokens of 32 codebooks of 2048: the first is semantic, the others residual, so that a reader may keep the first few
(Moshi keeps 8). They are decided in float64, because a rounding must not decide one. The original's convolutions are
padded causally, too, so that from the first frame on the numbers are its own. Each layer of its transformers hears the
last 250 positions, which are 10 s.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MimiConfig, MimiModel

from prep.codecs.protocol import CodecIdentity, State, digest_of_settings, digest_of_weights
from prep.codecs.seanet import Carry, check_causal, convolved, from_tokens, nearest, through, transposed
from prep.codecs.streams import SteppedCodec

VERSION = 1  # raise it when the code below changes the numbers
OPTIONS = ()
SETTINGS = (
    *("sampling_rate", "audio_channels", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios"),
    *("kernel_size", "last_kernel_size", "residual_kernel_size", "dilation_growth_rate", "compress"),
    *("codebook_size", "codebook_dim", "num_quantizers", "num_semantic_quantizers", "upsample_groups"),
    *("vector_quantization_hidden_dimension", "num_hidden_layers", "intermediate_size", "num_attention_heads"),
    *("head_dim", "hidden_act", "norm_eps", "sliding_window", "rope_parameters", "use_conv_shortcut"),
)
# the published file is flat, the modules are not
NESTED = {
    "encoder.layers.": "encoder.encoder_seanet.layers.",
    "encoder_transformer.": "encoder.encoder_transformer.",
    "downsample.": "encoder.downsample.",
    "upsample.": "decoder.upsample.",
    "decoder_transformer.": "decoder.decoder_transformer.",
    "decoder.layers.": "decoder.decoder_seanet.layers.",
}


def build(settings: dict[str, Any]) -> MimiModel:
    if settings.get("model_type") != "mimi":
        raise ValueError(f"model_type is {settings.get('model_type')!r}, not 'mimi'")
    config = MimiConfig(**settings)
    check_causal(config)
    if config.num_key_value_heads != config.num_attention_heads or config.frame_rate == config.encodec_frame_rate:
        raise ValueError("grouped attention, or no downsampling after the transformer: not what Mimi is")
    return MimiModel(config)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    def nested(name: str) -> str:
        found = [(flat, deep) for flat, deep in NESTED.items() if name.startswith(flat)]
        return found[0][1] + name.removeprefix(found[0][0]) if found else name

    return {nested(name): tensor for name, tensor in tensors.items()}


def adapt(network: MimiModel, option: str) -> MimiCodec:
    return MimiCodec(network)


class Quantiser:
    """A projection, and residual codebooks behind it."""

    def __init__(self, quantizer: Any, dtype: torch.dtype) -> None:
        self.codebooks = [layer.codebook.embed.to(dtype) for layer in quantizer.layers]
        copied = copy.deepcopy(quantizer).to(dtype)
        self.into: nn.Module = copied.input_proj or nn.Identity()
        self.out: nn.Module = copied.output_proj or nn.Identity()

    def tokens(self, hidden: Tensor) -> Tensor:
        return nearest(self.into(hidden).transpose(1, 2), self.codebooks)

    def hidden(self, tokens: Tensor) -> Tensor:
        return self.out(from_tokens(tokens, self.codebooks).transpose(1, 2))


class MimiCodec(SteppedCodec):
    def __init__(self, network: MimiModel) -> None:
        c = network.config
        self.identity = CodecIdentity(
            name="mimi",
            architecture=digest_of_settings(VERSION, {name: getattr(c, name) for name in SETTINGS}),
            weights=digest_of_weights(network.state_dict()),
            dtype="float64",
            sample_rate=c.sampling_rate,
            channels=c.audio_channels,
            hop=math.prod(c.upsampling_ratios) * network.encoder.downsample.conv.stride[0],
            dim=c.num_quantizers,
            causal=True,
            delay_samples=0,
            codebook_size=c.codebook_size,
        )
        q = network.quantizer
        halves = (q.semantic_residual_vector_quantizer, q.acoustic_residual_vector_quantizer)
        self.semantic = c.num_semantic_quantizers
        self.exact = [Quantiser(half, torch.float64) for half in halves]
        self.quantisers = [Quantiser(half, torch.float32) for half in halves]
        self.encoder = network.encoder.double()
        self.decoder = network.decoder

    def encode_state(self, batch: int) -> State:
        return ()

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        carry, encoder = Carry(state), self.encoder
        hidden = through(encoder.encoder_seanet.layers, audio.double(), carry)
        hidden = attended(encoder.encoder_transformer, hidden.transpose(1, 2), carry).transpose(1, 2)
        hidden = convolved(encoder.downsample.conv, hidden, carry, replicate=True)
        return torch.cat([each.tokens(hidden) for each in self.exact], 2), carry.state()

    def decode_state(self, batch: int) -> State:
        return ()

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        carry, decoder, tokens = Carry(state), self.decoder, latents.long()
        first, rest = (each.hidden(part) for each, part in zip(self.quantisers, self._halves(tokens), strict=True))
        hidden = transposed(decoder.upsample.conv, first + rest, carry)
        hidden = attended(decoder.decoder_transformer, hidden.transpose(1, 2), carry).transpose(1, 2)
        return through(decoder.decoder_seanet.layers, hidden, carry), carry.state()

    def _halves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens[..., : self.semantic], tokens[..., self.semantic :]


def attended(transformer: Any, x: Tensor, carry: Carry) -> Tensor:
    """(B, time, hidden) through the layers; each keeps the keys and values that its window still reaches, not yet
    turned: positions are counted from the first of them, so that they mean the same wherever a stream is."""
    window, layers = transformer.config.sliding_window, transformer.layers
    past: list[tuple[Tensor, ...]]
    if carry.fresh:
        past = [
            x.new_zeros(2, len(x), each.self_attn.num_heads, 0, each.self_attn.head_dim).unbind() for each in layers
        ]
    else:
        past = [(carry.take(), carry.take()) for _ in layers]
    kept, steps = past[0][0].shape[2], x.shape[1]
    positions = torch.arange(kept + steps, device=x.device)
    turn = transformer.rotary_emb(x, positions[None])
    distance = positions[kept:, None] - positions
    mask = (distance >= 0) & (distance < window)
    for layer, before in zip(layers, past, strict=True):
        heard, after = _attention(layer.self_attn, layer.input_layernorm(x), turn, mask, before)
        for part in after:
            carry.leave(part[:, :, max(0, kept + steps - (window - 1)) :])
        x = x + layer.self_attn_layer_scale(heard)
        x = x + layer.mlp_layer_scale(layer.mlp(layer.post_attention_layernorm(x)))
    return x


def _attention(
    layer: Any, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, before: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """And all keys and values, not turned."""
    q, k, v = (part(x).unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for part in _projections(layer))
    k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
    cos, sin = turn
    q = _turned(q, cos[:, -x.shape[1] :], sin[:, -x.shape[1] :])
    heard = F.scaled_dot_product_attention(q, _turned(k, cos, sin), v, mask, scale=layer.scaling)
    return layer.o_proj(heard.transpose(1, 2).flatten(2)), (k, v)


def _projections(layer: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    return layer.q_proj, layer.k_proj, layer.v_proj


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: pairs are the first and second half of a head."""
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
