"""CoDiCodec (Pasini et al. 2025, arXiv 2509.09836): 44.1 kHz stereo, 64 numbers per 4096 samples; CC BY-NC 4.0.

Chunk-causal: 8 frames are encoded together, and each of them hears to their end and 1024 samples beyond. So it does not
claim to be causal, and the certificate tells how far ahead it hears.

Its decoder is generative. Chunk by chunk, each continues what was made of the one before (silence, at first) in two
steps from noise; that of a chunk is drawn from its number, so that the same latents give the same audio. All is in
float32, where the package itself computes in float16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prep.codecs.protocol import CodecIdentity, State, digest_of_settings, digest_of_weights
from prep.codecs.streams import Span, SteppedDecoder, WindowedEncoder


@contextmanager
def _settings_kept() -> Iterator[None]:
    """The package sets these for the whole process when it is imported; with them the same is not the same twice."""
    cudnn, matmul, cache = torch.backends.cudnn, torch.backends.cuda.matmul, "TORCHINDUCTOR_CACHE_DIR"
    flags = [(cudnn, "benchmark"), (cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    flags.append((matmul, "allow_fp16_reduced_precision_reduction"))
    before, folder = [getattr(*flag) for flag in flags], os.environ.get(cache)
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            setattr(*flag, value)
        os.environ.pop(cache, None)
        if folder is not None:
            os.environ[cache] = folder


with _settings_kept():
    from codicodec import hparams
    from codicodec.audio import to_representation_encoder, to_waveform
    from codicodec.hparams_inference import sigma_rescale
    from codicodec.models import UNet
    from codicodec.utils import get_sigma_continuous, reverse_step

VERSION = 1  # raise it when the code below changes the numbers
OPTIONS = ()
SAMPLE_RATE = 44100  # it was trained on 48 kHz as well; LiveBand's latents are of this one
CHUNK_FRAMES = 8
SETTINGS = ("hop", "spec_length", "stft_channels", "num_latents", "bottleneck_channels", "num_layers", "dim")


def build(settings: dict[str, Any]) -> nn.Module:
    network: nn.Module = UNet()
    return network


def renamed(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The file holds more than the network that is used."""
    found: dict[str, Tensor] = tensors["gen_state_dict"]
    return found


def adapt(network: nn.Module, option: str) -> CodicodecCodec:
    return CodicodecCodec(network)


class CodicodecCodec(WindowedEncoder, SteppedDecoder):
    hears = Span(back=0, ahead=1, grid=CHUNK_FRAMES)

    def __init__(self, network: Any) -> None:
        self.network = network
        self.window = hparams.hop * hparams.fac
        chunk = hparams.hop * hparams.spec_length
        self.identity = CodecIdentity(
            name="codicodec",
            architecture=digest_of_settings(VERSION, {name: getattr(hparams, name) for name in SETTINGS}),
            weights=digest_of_weights(network.state_dict()),
            dtype="float32",
            sample_rate=SAMPLE_RATE,
            channels=2,
            hop=chunk // CHUNK_FRAMES,
            dim=hparams.num_latents * hparams.bottleneck_channels // CHUNK_FRAMES,
            causal=False,
            delay_samples=0,
        )

    def encode_window(self, audio: Tensor) -> Tensor:
        i, frames = self.identity, audio.shape[2] // self.identity.hop
        silence = -frames % CHUNK_FRAMES * i.hop + self.window - hparams.hop
        spectra = to_representation_encoder(F.pad(audio, (0, silence)))  # (B, stft_channels, bins, columns)
        chunks = torch.stack(spectra.split(hparams.spec_length, 3), 1)
        codes = self.network.encoder_forward(chunks.flatten(0, 1), dont_quantize=True)
        latents = (torch.atanh(codes) / sigma_rescale).unflatten(0, chunks.shape[:2])
        return latents.flatten(1).unflatten(1, (-1, i.dim))[:, :frames]

    def decode_state(self, batch: int) -> State:
        """The next chunk's number; the spectra and latents of the one before; the latents of one that is not full."""
        i, device = self.identity, next(self.network.parameters()).device
        before = self.encode_window(torch.zeros(batch, i.channels, CHUNK_FRAMES * i.hop, device=device))
        spectra = torch.zeros(batch, hparams.stft_channels, hparams.hop, hparams.spec_length, device=device)
        return torch.zeros((), dtype=torch.int64), spectra, before, before[:, :0]

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """A chunk that is not full sounds as if zeros followed."""
        *before, waiting = state
        out = []
        for part in torch.cat([waiting, latents], 1).split(CHUNK_FRAMES, 1):
            full = F.pad(part, (0, 0, 0, CHUNK_FRAMES - part.shape[1]))
            audio, after = self._chunk(full, *before)
            out.append(audio[..., : part.shape[1] * self.identity.hop])
            before, waiting = (before, part) if part.shape[1] < CHUNK_FRAMES else (after, part[:, :0])
        return torch.cat(out, 2)[..., state[-1].shape[1] * self.identity.hop :], (*before, waiting)

    def _chunk(self, latents: Tensor, number: Tensor, spectra: Tensor, before: Tensor) -> tuple[Tensor, list[Tensor]]:
        steps, codes = hparams.default_denoising_steps_ar, [self._codes(each) for each in (before, latents)]
        prompt = _sigma(hparams.default_time_prompt)
        first, *noises = _noise(int(number), steps + 1, spectra)
        past, made = reverse_step(spectra, first, prompt), noises[0] * hparams.sigma_max
        features = self.network.pre_decoder_forward(torch.cat(codes, 1))
        for step, sigma in enumerate([_sigma(1 - step / steps) for step in range(steps)]):
            both, given = torch.cat([past, made], 3), torch.cat(codes, 1)
            clean = self.network.decoder_forward(
                both, given, features=features, output="right", sigma_left=prompt, sigma_right=sigma
            )
            if step + 1 < steps:
                made = reverse_step(clean, noises[step + 1], _sigma(1 - (step + 1) / steps))
        audio = to_waveform(torch.cat([spectra, clean], 3))
        start = hparams.spec_length * hparams.hop
        return audio[..., start : start + CHUNK_FRAMES * self.identity.hop], [number + 1, clean, latents]

    def _codes(self, latents: Tensor) -> Tensor:
        """(B, frames, dim) -> (B, codes, bottleneck)."""
        return torch.tanh(latents * sigma_rescale).flatten(1).unflatten(1, (-1, hparams.bottleneck_channels))


def _sigma(share: float) -> Tensor:
    """Of the noise, from 0 (almost none) to 1."""
    sigma: Tensor = get_sigma_continuous(torch.tensor(share))
    return sigma


def _noise(number: int, count: int, like: Tensor) -> list[Tensor]:
    """The same for each row of the batch."""
    generator = torch.Generator().manual_seed(number)
    drawn = torch.randn(count, 1, *like.shape[1:], generator=generator)
    return [each.expand(len(like), -1, -1, -1) for each in drawn.to(like.device)]
