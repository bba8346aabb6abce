"""What a codec has to beat to be worth its name, at the same frames and with as many numbers in each.

All but Opus are fitted to the very clips that they are scored on: no linear codec, say, has a smaller squared error.
Where these are too short for that (a linear codec has no error at all on fewer frames than it has numbers), they are
fitted to all clips at hand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prep.codecs import CausalCodec, CausalConfig
from train.codec import opus
from train.codec.components import start_from_components
from train.errors import TrainError

CROP_FRAMES = 24
FRAMES_A_NUMBER = 8


@dataclass(frozen=True)
class Coder:
    """Anything that audio goes through: (2, samples) in whole frames -> (2, samples)."""

    label: str
    round_trip: Callable[[Tensor], Tensor] | None  # None: it cannot be had here, and why
    missing: str = ""


def coder_of(label: str, codec: CausalCodec) -> Coder:
    return Coder(label, lambda audio: codec.decode(codec.encode(audio[None]))[0])


def yardsticks(config: CausalConfig, clips: list[Tensor], all_clips: list[Tensor]) -> list[Coder]:
    """For a codec of this configuration, fitted to `clips`, each (2, whole frames), or where these are too few to all.

    Raises TrainError where even those are too few."""
    if _frames(clips, config) < FRAMES_A_NUMBER * config.dim:
        clips = all_clips
    least = 2 * config.dim
    if _frames(clips, config) < least:
        raise TrainError(
            f"{_frames(clips, config)} frames in all are too few for yardsticks of {config.dim} numbers a frame. "
            f"Give at least {least} ({math.ceil(least * config.hop / config.sample_rate)} s)."
        )
    basis = principal_components(clips, config.hop, config.dim)
    found = [
        Coder("best linear", lambda audio: linear_round_trip(audio, basis, config.hop)),
        coder_of("vocoder, untrained", vocoder(config, clips)),
        coder_of("linear + vocoder, untrained", split(config, clips)),
    ]
    for kbits in (12, 24, 48):
        trip = partial(opus.opus_round_trip, rate=config.sample_rate, kbits=kbits)
        found.append(Coder(f"Opus {kbits} kbit/s", None if opus.missing() else trip, opus.missing()))
    return found


def _frames(clips: list[Tensor], config: CausalConfig) -> int:
    return sum(clip.shape[1] // config.hop for clip in clips)


# -- the best linear codec ------------------------------------------------------------------------------------------


def frames_of(mix: Tensor, hop: int) -> Tensor:
    """(2, frames * hop) -> (frames, 2 * hop)."""
    return mix.unfold(1, hop, hop).transpose(0, 1).flatten(1)


def principal_components(mixes: list[Tensor], hop: int, dim: int) -> Tensor:
    """(2 * hop, dim): the leading components of all frames, uncentred."""
    torch.manual_seed(0)
    return torch.svd_lowrank(torch.cat([frames_of(mix, hop) for mix in mixes]), q=dim + 32, niter=6)[2][:, :dim]


def linear_round_trip(mix: Tensor, basis: Tensor, hop: int) -> Tensor:
    """Project every frame on `basis` and back: (2, samples) -> (2, samples)."""
    frames = frames_of(mix, hop) @ basis @ basis.T
    return frames.view(-1, 2, hop).transpose(0, 1).flatten(1)


# -- the causal codec before training -------------------------------------------------------------------------------


def split(config: CausalConfig, clips: list[Tensor]) -> CausalCodec:
    """The codec as training starts: principal components of the waveform and of log-mel features."""
    torch.manual_seed(0)
    codec = CausalCodec(config)
    start_from_components(codec, _crops(clips, config.hop))
    return codec.eval().requires_grad_(False)


def vocoder(config: CausalConfig, clips: list[Tensor]) -> CausalCodec:
    """All numbers of a frame for its log-mel features, and no phase: the waveform's one number is not used."""
    codec = split(dataclasses.replace(config, wave_dim=1, envelope_dim=config.dim), clips)
    for layer in (codec.wave_in, codec.wave_out, codec.phase):
        layer.weight.zero_()
    codec.phase.bias.view(2, 3, -1)[:, 0] = 20.0  # noise in every bin
    return codec


def _crops(clips: list[Tensor], hop: int) -> Tensor:
    """(B, 2, crop): the clips cut up; those shorter than a crop are padded with zeros."""
    length = CROP_FRAMES * hop
    padded = [torch.nn.functional.pad(clip, (0, max(0, length - clip.shape[1]))) for clip in clips]
    return torch.cat([clip.unfold(1, length, length).transpose(0, 1) for clip in padded])
