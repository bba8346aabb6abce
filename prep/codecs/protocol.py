"""What every codec offers, and the identity by which a dataset remembers the one that made it.

Audio is float32 (batch, channels, samples) at the codec's rate. Latents are (batch, frames, dim): float32 numbers, or
int64 tokens, one for each of `dim` codebooks. Streaming state is a value: passed in, handed back, never kept on the
codec. `prep certify` holds a codec to all of this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# The first axis of each part is the batch's; a part without axes, such as a position, is common to all.
State = tuple[Tensor, ...]

# 120 dB over full scale, as in prep.audio: what is louder is no audio, and its powers overflow
MAX_PEAK = 1e6


@dataclass(frozen=True)
class CodecIdentity:
    """All that decides an encoding's numbers, up to the hardware; and all that a reader of latents has to know."""

    name: str
    architecture: str  # digest of the architecture's settings and of the code's declared version
    weights: str  # sha256 of the weights: names, shapes, values
    dtype: str
    sample_rate: int
    channels: int
    hop: int  # samples a frame
    dim: int  # numbers a frame; of tokens, how many codebooks
    causal: bool
    delay_samples: int  # beyond the frame itself: decoded sample n is input sample n - delay_samples
    codebook_size: int = 0  # latents are tokens 0 … codebook_size - 1; 0: they are continuous

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @property
    def digest(self) -> str:
        """Eight hex digits for folder names: two codecs that differ anywhere differ here."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:8]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "frame_rate": self.frame_rate}


class Codec(Protocol):
    """Audio to latents and back, whole or frame by frame, with the same numbers.

    `encode` and `decode` raise ValueError for what is not finite. The steps do not look at the values. A codec made of
    convolutions alone, where not even NaN gets from the future into the past, may say so: `convolutional = True`.
    """

    @property
    def identity(self) -> CodecIdentity: ...

    def encode(self, audio: Tensor) -> Tensor:
        """(B, channels, samples) -> (B, ceil(samples / hop), dim); the tail is padded with zeros."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, frames, dim) -> (B, channels, frames * hop)."""
        ...

    def encode_state(self, batch: int) -> State: ...

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, channels, k * hop) -> (B, k, dim) and the state after it."""
        ...

    def decode_state(self, batch: int) -> State: ...

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, k, dim) -> (B, channels, k * hop) and the state after it."""
        ...


def frames_of(samples: int, hop: int) -> int:
    """The last frame may be begun only."""
    return -(-samples // hop)


def encode_batch(codec: Codec, audio: Sequence[Tensor]) -> list[Tensor]:
    """(channels, samples) each, of any lengths, to (frames, dim) each, as encoded alone.

    Shorter ones are padded with silence. What hears the future would hear it, so a codec that is not causal gets
    batches of equal frames.
    """
    hop, found = codec.identity.hop, {}
    frames = [frames_of(each.shape[1], hop) for each in audio]
    for group in _groups(frames, codec.identity.causal):
        longest = max(frames[i] for i in group) * hop
        batch = torch.stack([F.pad(audio[i], (0, longest - audio[i].shape[1])) for i in group])
        found.update({i: row[: frames[i]] for i, row in zip(group, codec.encode(batch), strict=True)})
    return [found[i] for i in range(len(audio))]


def decode_batch(codec: Codec, latents: Sequence[Tensor]) -> list[Tensor]:
    """(frames, dim) each, to (channels, frames * hop) each, as decoded alone; padded as by `encode_batch`."""
    hop, found = codec.identity.hop, {}
    frames = [len(each) for each in latents]
    for group in _groups(frames, codec.identity.causal):
        longest = max(frames[i] for i in group)
        batch = torch.stack([F.pad(latents[i], (0, 0, 0, longest - frames[i])) for i in group])
        found.update({i: row[:, : frames[i] * hop] for i, row in zip(group, codec.decode(batch), strict=True)})
    return [found[i] for i in range(len(latents))]


def _groups(frames: Sequence[int], causal: bool) -> list[list[int]]:
    """What may share a batch."""
    if causal:
        return [list(range(len(frames)))] if frames else []
    return [[i for i, n in enumerate(frames) if n == count] for count in sorted(set(frames))]


def check_audio(audio: Tensor, channels: int) -> None:
    """Raises ValueError for what is no (batch, channels, samples) of finite audio."""
    if audio.ndim != 3 or audio.shape[1] != channels or not audio.is_floating_point():
        raise ValueError(
            f"encode takes floats (batch, {channels}, samples); got {audio.dtype} {tuple(audio.shape)}. "
            "Expand mono to all channels, and mix several channels down first."
        )
    if not bool((audio.abs() <= MAX_PEAK).all()):  # false of NaN, too
        raise ValueError(
            f"the audio holds NaN, infinity or samples beyond {MAX_PEAK:g} times full scale: nothing to hear"
        )


def check_latents(latents: Tensor, dim: int, codebook_size: int = 0) -> None:
    """Raises ValueError for what is no (batch, frames, dim) of finite latents, or of tokens below `codebook_size`.

    Tokens may come as floats, as shards hold them."""
    if latents.ndim != 3 or latents.shape[2] != dim:
        raise ValueError(f"decode takes (batch, frames, {dim}); got {tuple(latents.shape)}")
    if not bool(torch.isfinite(latents).all()):
        raise ValueError("the latents hold NaN or infinity: they come of no encoder")
    if codebook_size and bool(((latents < 0) | (latents >= codebook_size) | (latents != latents.floor())).any()):
        raise ValueError(f"the latents hold what is no token of 0 ... {codebook_size - 1}: they come of no encoder")


def digest_of_settings(version: int, settings: Mapping[str, Any]) -> str:
    """For CodecIdentity.architecture."""
    text = json.dumps({"version": version, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_weights(tensors: Mapping[str, Tensor]) -> str:
    """For CodecIdentity.weights: names, shapes, values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
