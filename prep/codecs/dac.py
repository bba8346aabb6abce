"""DAC 44.1 kHz (Kumar et al. 2023, arXiv 2306.06546): mono, 86 frames a second, not causal; weights MIT.

Tokens of 9 residual codebooks of 1024, decided in float64, because a rounding must not decide one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import DacConfig, DacModel

from prep.codecs.protocol import CodecIdentity, digest_of_settings, digest_of_weights
from prep.codecs.streams import WindowedCodec, decoder_span, encoder_span

VERSION = 1  # raise it when the code below changes the numbers
OPTIONS = ()
SETTINGS = (
    *("sampling_rate", "encoder_hidden_size", "downsampling_ratios", "decoder_hidden_size"),
    *("n_codebooks", "codebook_size", "codebook_dim"),
)


def build(settings: dict[str, Any]) -> DacModel:
    if settings.get("model_type") != "dac":
        raise ValueError(f"model_type is {settings.get('model_type')!r}, not 'dac'")
    return DacModel(DacConfig(**settings))


def adapt(network: DacModel, option: str) -> DacCodec:
    return DacCodec(network)


class DacCodec(WindowedCodec):
    def __init__(self, network: DacModel) -> None:
        c = network.config
        self.identity = CodecIdentity(
            name="dac",
            architecture=digest_of_settings(VERSION, {name: getattr(c, name) for name in SETTINGS}),
            weights=digest_of_weights(network.state_dict()),
            dtype="float64",
            sample_rate=c.sampling_rate,
            channels=1,
            hop=c.hop_length,
            dim=c.n_codebooks,
            causal=False,
            delay_samples=0,
            codebook_size=c.codebook_size,
        )
        self.hears, self.sounds = encoder_span(network.encoder), decoder_span(network.decoder)
        self.exact = copy.deepcopy(network.quantizer).double()
        self.encoder = network.encoder.double()
        self.quantizer, self.decoder = network.quantizer, network.decoder

    def encode_window(self, audio: Tensor) -> Tensor:
        _, tokens, *_ = self.exact(self.encoder(audio.double()))
        return tokens.transpose(1, 2)

    def decode_window(self, latents: Tensor) -> Tensor:
        hidden, *_ = self.quantizer.from_codes(latents.long().transpose(1, 2))
        audio = self.decoder(hidden)
        # where a ratio is odd, the last transposed convolution of a window falls short
        return F.pad(audio, (0, latents.shape[1] * self.identity.hop - audio.shape[2]))
