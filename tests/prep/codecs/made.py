"""An honest little codec, and codecs that are not what they say: one for each way to cheat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prep.codecs import CodecIdentity, State
from prep.codecs.protocol import check_audio, check_latents, frames_of

HOP, DIM, RATE, CHANNELS = 64, 12, 8000, 2


class Honest:
    """Cosines of the frame, each channel's own, plus a tenth of the frame before; and back, which rings on as long."""

    convolutional = True

    def __init__(self, **claims: Any) -> None:
        name = type(self).__name__.lower()
        made = CodecIdentity(name, "a", "w", "float32", RATE, CHANNELS, HOP, DIM, causal=True, delay_samples=0)
        self.identity = replace(made, **claims)
        i = self.identity
        cosines = torch.cos(torch.pi * (torch.arange(i.hop) + 0.5)[:, None] * torch.arange(i.dim // 2) / i.hop)
        self.basis = cosines / cosines.norm(dim=0)

    def encode_state(self, batch: int) -> State:
        return (torch.zeros(batch, 1, self.identity.dim),)

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        frames = audio.unflatten(2, (-1, self.identity.hop)) @ self.basis
        own = frames.transpose(1, 2).flatten(2)
        return own + 0.1 * torch.cat([state[0], own[:, :-1]], 1), (own[:, -1:],)

    decode_state = encode_state

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        heard = latents - 0.1 * torch.cat([state[0], latents[:, :-1]], 1)
        frames = heard.unflatten(2, (CHANNELS, -1)).transpose(1, 2) @ self.basis.T
        return frames.flatten(2), (latents[:, -1:],)

    def encode(self, audio: Tensor) -> Tensor:
        check_audio(audio, CHANNELS)
        hop, frames = self.identity.hop, frames_of(audio.shape[2], self.identity.hop)
        padded = F.pad(audio, (0, frames * hop - audio.shape[2]))
        return self.encode_step(padded, self.encode_state(len(audio)))[0]

    def decode(self, latents: Tensor) -> Tensor:
        check_latents(latents, self.identity.dim)
        return self.decode_step(latents, self.decode_state(len(latents)))[0]


class Glancing(Honest):
    """Hears one sample of the next frame."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, after = super().encode_step(audio, state)
        following = F.pad(audio[:, 0, self.identity.hop :: self.identity.hop], (0, 1))
        return latents + 0.001 * following[:, :, None], after


class Levelled(Honest):
    """Brings the whole to one level."""

    def encode(self, audio: Tensor) -> Tensor:
        latents = super().encode(audio)
        return latents / (1e-3 + latents.abs().amax((1, 2), keepdim=True)) if latents.numel() else latents


class Foreboding(Honest):
    """Sounds a frame before its time."""

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        audio, after = super().decode_step(latents, state)
        hop = self.identity.hop
        return audio + 0.01 * torch.cat([audio[:, :, hop:], torch.zeros_like(audio[:, :, :hop])], 2), after


class Forgetful(Honest):
    """Begins anew with every step."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        return super().encode_step(audio, self.encode_state(len(audio)))


class Moody(Honest):
    """Never quite the same."""

    def __init__(self, **claims: Any) -> None:
        super().__init__(**claims)
        self.calls = 0

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls += 1
        latents, after = super().encode_step(audio, state)
        return latents * (1 + 1e-6 * (self.calls % 7)), after


class Remembering(Honest):
    """Keeps its state to itself; a whole encoding is not touched by that."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        if bool(state[0].any()):
            state = self.kept
        latents, self.kept = super().encode_step(audio, state)
        return latents, self.kept


class Overwriting(Honest):
    """A step changes the state that it was given."""

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        audio, after = super().decode_step(latents, state)
        if latents.shape[1]:
            state[0].copy_(after[0])
        return audio, state


class Gossiping(Honest):
    """What else is in the batch is heard in the latents."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, after = super().encode_step(audio, state)
        return latents - 0.001 * (latents.mean(0) - latents), after


class Chattering(Honest):
    """... and in the audio."""

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        audio, after = super().decode_step(latents, state)
        return audio - 0.001 * (audio.mean(0) - audio), after


class Miscounting(Honest):
    """One frame too few where a frame lacks its last sample."""

    def encode(self, audio: Tensor) -> Tensor:
        latents = super().encode(audio)
        return latents[:, :-1] if audio.shape[2] % self.identity.hop == self.identity.hop - 1 else latents


class Crashing(Honest):
    """Cannot do with nothing."""

    def encode(self, audio: Tensor) -> Tensor:
        audio[0, 0, 0]  # IndexError
        return super().encode(audio)


class Short(Honest):
    """Swallows the end of what it decodes."""

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents)[:, :, :-1]


class Dividing(Honest):
    """By the level, whatever that is."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, after = super().encode_step(audio, state)
        return latents / latents.square().mean(2, keepdim=True).sqrt(), after


class Late(Honest):
    """Decodes with a delay of 100 samples."""

    def decode_state(self, batch: int) -> State:
        return (*super().decode_state(batch), torch.zeros(batch, CHANNELS, 100))

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        audio, after = super().decode_step(latents, state[:1])
        late = torch.cat([state[1], audio], 2)
        return late[:, :, :-100], (*after, late[:, :, -100:])


class Masking(Honest):
    """Hears the future times nothing."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, after = super().encode_step(audio, state)
        return latents + 0 * audio.sum((1, 2))[:, None, None], after


class Tokens(Honest):
    """Each number as one of 16 levels."""

    def __init__(self, **claims: Any) -> None:
        super().__init__(**{"codebook_size": 16, **claims})

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, after = super().encode_step(audio, state)
        return (4 * latents + 8).round().clamp(0, 15).long(), after

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        return super().decode_step((latents.float() - 8) / 4, state)
