"""EnCodec 24 kHz (Défossez et al. 2022, arXiv 2210.13438): mono, 75 frames a second, causal; weights MIT.

`encodec` gives the 128 numbers a frame before the quantiser, which its decoder takes as well; `encodec@tokens` all 32
codebooks, of which a reader may keep the first few: they are residual. Tokens are decided in float64, because a
rounding must not decide one.

The original pads each convolution with the mirrored beginning of its input, which at the deepest layer are six frames
of the future. Instead, here a second of silence was heard before the first sample, and decoded before the first frame.
Whole and streamed then agree, and differ from the original only for as long as the network remembers its beginning.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from prep.codecs.protocol import CodecIdentity, State, digest_of_settings, digest_of_weights
from prep.codecs.seanet import Carry, check_causal, from_tokens, fuse_weight_norm, nearest, through
from prep.codecs.streams import SteppedCodec

VERSION = 1  # raise it when the code below changes the numbers
OPTIONS = ("tokens",)
SILENCE_S = 1.0
SETTINGS = (
    *("sampling_rate", "audio_channels", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios"),
    *("kernel_size", "last_kernel_size", "residual_kernel_size", "dilation_growth_rate", "compress"),
    *("num_lstm_layers", "use_conv_shortcut", "codebook_size", "codebook_dim", "target_bandwidths"),
)


def build(settings: dict[str, Any]) -> EncodecModel:
    if settings.get("model_type") != "encodec":
        raise ValueError(f"model_type is {settings.get('model_type')!r}, not 'encodec'")
    config = EncodecConfig(**settings)
    check_causal(config)
    if config.normalize or config.norm_type != "weight_norm":
        raise ValueError("it levels the whole clip: only the 24 kHz network, which does not, is adapted")
    return EncodecModel(config)


def adapt(network: EncodecModel, option: str) -> EncodecCodec:
    return EncodecCodec(network, option == "tokens")


class EncodecCodec(SteppedCodec):
    def __init__(self, network: EncodecModel, tokens: bool) -> None:
        c = network.config
        settings = {name: getattr(c, name) for name in SETTINGS}
        self.codebooks = [layer.codebook.embed for layer in network.quantizer.layers] if tokens else []
        self.identity = CodecIdentity(
            name="encodec",
            architecture=digest_of_settings(VERSION, {**settings, "tokens": tokens, "silence_s": SILENCE_S}),
            weights=digest_of_weights(network.state_dict()),
            dtype="float64" if tokens else "float32",
            sample_rate=c.sampling_rate,
            channels=c.audio_channels,
            hop=c.hop_length,
            dim=len(self.codebooks) or c.hidden_size,
            causal=True,
            delay_samples=0,
            codebook_size=c.codebook_size if tokens else 0,
        )
        fuse_weight_norm(network)
        self.encoder: Any = network.encoder.to(getattr(torch, self.identity.dtype))
        self.decoder: Any = network.decoder
        self.exact = [codebook.double() for codebook in self.codebooks]

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        carry = Carry(state)
        dtype = torch.float64 if self.codebooks else torch.float32
        hidden = through(self.encoder.layers, audio.to(dtype), carry).transpose(1, 2)
        return nearest(hidden, self.exact) if self.codebooks else hidden, carry.state()

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        carry = Carry(state)
        hidden = from_tokens(latents.long(), self.codebooks) if self.codebooks else latents
        return through(self.decoder.layers, hidden.transpose(1, 2), carry), carry.state()

    def encode_state(self, batch: int) -> State:
        """After silence."""
        return _repeated(self._silent[0], batch)

    def decode_state(self, batch: int) -> State:
        """After silence, as encoded."""
        return _repeated(self._silent[1], batch)

    @cached_property
    def _silent(self) -> tuple[State, State]:
        i, device = self.identity, next(self.decoder.parameters()).device
        frames = round(SILENCE_S * i.frame_rate)
        with torch.inference_mode(False), torch.no_grad():
            latents, heard = self.encode_step(torch.zeros(1, i.channels, frames * i.hop, device=device), ())
            return heard, self.decode_step(latents, ())[1]


def _repeated(state: State, batch: int) -> State:
    return tuple(part.repeat(batch, *[1] * (part.ndim - 1)) for part in state)
