"""The VAE of Stable Audio Open (Evans et al. 2024, arXiv 2407.14358): 44.1 kHz stereo, 64 numbers per 2048 samples, not
causal; weights under Stability AI's community licence.

A latent is the posterior's mean, so that the same audio gives the same numbers.
"""

from __future__ import annotations

import warnings
from typing import Any

from diffusers import AutoencoderOobleck
from torch import Tensor, nn

from prep.codecs.protocol import CodecIdentity, digest_of_settings, digest_of_weights
from prep.codecs.streams import WindowedCodec, decoder_span, encoder_span

VERSION = 1  # raise it when the code below changes the numbers
OPTIONS = ()
SETTINGS = (
    *("encoder_hidden_size", "downsampling_ratios", "channel_multiples", "decoder_channels"),
    *("decoder_input_channels", "audio_channels", "sampling_rate"),
)


def build(settings: dict[str, Any]) -> AutoencoderOobleck:
    if settings.get("_class_name") != "AutoencoderOobleck":
        raise ValueError(f"_class_name is {settings.get('_class_name')!r}, not 'AutoencoderOobleck'")
    if settings["encoder_hidden_size"] != 2 * settings["decoder_input_channels"]:
        raise ValueError("its encoder does not give a mean and a deviation for each number that its decoder takes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of the weight norm that diffusers uses
        return AutoencoderOobleck(**{name: settings[name] for name in SETTINGS})


def adapt(network: AutoencoderOobleck, option: str) -> OobleckCodec:
    return OobleckCodec(network)


class OobleckCodec(WindowedCodec):
    def __init__(self, network: AutoencoderOobleck) -> None:
        c = network.config
        self.identity = CodecIdentity(
            name="oobleck",
            architecture=digest_of_settings(VERSION, {name: c[name] for name in SETTINGS}),
            weights=digest_of_weights(network.state_dict()),
            dtype="float32",
            sample_rate=c["sampling_rate"],
            channels=c["audio_channels"],
            hop=network.hop_length,
            dim=c["decoder_input_channels"],
            causal=False,
            delay_samples=0,
        )
        _fuse_weight_norm(network)
        self.hears, self.sounds = encoder_span(network.encoder), decoder_span(network.decoder)
        self.encoder, self.decoder = network.encoder, network.decoder

    def encode_window(self, audio: Tensor) -> Tensor:
        mean, _ = self.encoder(audio).chunk(2, 1)
        return mean.transpose(1, 2)

    def decode_window(self, latents: Tensor) -> Tensor:
        return self.decoder(latents.transpose(1, 2))


def _fuse_weight_norm(network: nn.Module) -> None:
    """The older kind of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for module in network.modules():
            if hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)
