"""Made audio for a codec's certificate, and how far a change reaches through a codec.

Reaches are in samples. Encoding: how far before its first sample (back) and beyond its last one (ahead) a frame hears.
Decoding: how far beyond its last sample (back: the past that a sample hears) and before its first one (ahead) a frame
sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prep.codecs import Codec, CodecIdentity
from prep.codecs.protocol import frames_of
from prep.draws import rng_for

PROBE_S = 3.0  # and at least so many frames:
PROBE_FRAMES = 24
HEARD = 8.0  # a peak so many times the rest's root mean square is an echo and no accident


def probe_samples(identity: CodecIdentity) -> int:
    """Whole frames."""
    return max(PROBE_FRAMES, frames_of(round(PROBE_S * identity.sample_rate), identity.hop)) * identity.hop


def noise(identity: CodecIdentity, samples: int, name: str) -> Tensor:
    """(channels, samples) that swells and fades, so that no level is special; another for each name."""
    rng = rng_for(0, "certify", name)
    swell = 1 + np.sin(np.arange(samples) * (2 * np.pi * 2.3 / identity.sample_rate))
    return torch.from_numpy((0.1 * swell * rng.standard_normal((identity.channels, samples))).astype(np.float32))


def made_audio(identity: CodecIdentity) -> list[Tensor]:
    """Noise, decaying tones, clicks and silence, (channels, samples) each, of different lengths."""
    rate, length = identity.sample_rate, probe_samples(identity)
    time_s = torch.arange(length, dtype=torch.float64) / rate
    pitch = 110 * 2 ** (torch.floor(2 * time_s) * 5 / 12)
    tones = 0.5 * torch.sin(2 * torch.pi * pitch * time_s) * torch.exp(-6 * (time_s % 0.5))
    clicks = torch.zeros(length)
    clicks[:: round(0.31 * rate)] = 1.0
    spread = torch.linspace(1.0, 0.5, identity.channels)[:, None]
    return [
        noise(identity, length, "made"),
        (spread * tones).float()[:, : length // 2 - identity.hop // 3],
        (spread * clicks)[:, : length // 3],
        torch.zeros(identity.channels, length // 4 + 1),
    ]


@dataclass(frozen=True)
class Reach:
    """`whole`: to the end of the probe, so that it may be more."""

    samples: int
    whole: bool


def encode_reach(codec: Codec) -> tuple[Reach, Reach]:
    """Back and ahead."""
    identity = codec.identity
    hop, length = identity.hop, probe_samples(identity)
    audio, other = noise(identity, length, "reach"), noise(identity, length, "other")
    latents = codec.encode(audio[None])

    def last_heard(frame: int) -> int:
        def heard(p: int) -> bool:  # sample p, or a later one
            changed = codec.encode(torch.cat([audio[:, :p], other[:, p:]], 1)[None])
            return differs(changed[:, frame], latents[:, frame])

        end = (frame + 1) * hop
        return _last(heard, length) if heard(end) else end - 1

    def unheard(p: int) -> bool:  # all before sample p, by the last frame
        changed = codec.encode(torch.cat([other[:, :p], audio[:, p:]], 1)[None])
        return not differs(changed[:, -1], latents[:, -1])

    first = _last(unheard, length)
    back = Reach(length - hop - first, first <= 0)
    frames = (0, latents.shape[1] // 2)
    aheads = {last_heard(frame) + 1 - (frame + 1) * hop: frame for frame in frames}
    ahead = max(aheads)
    return back, Reach(ahead, ahead == length - (aheads[ahead] + 1) * hop)


def _last(holds: Callable[[int], bool], length: int) -> int:
    """The last of 0 … length - 1 that holds, where all before it hold and none after; -1 where none does."""
    low, high = -1, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def decode_reach(codec: Codec) -> tuple[Reach, Reach]:
    """Back and ahead."""
    hop, length = codec.identity.hop, probe_samples(codec.identity)
    latents = codec.encode(noise(codec.identity, length, "reach")[None])
    other = codec.encode(noise(codec.identity, length, "other")[None])
    audio = codec.decode(latents)

    def changed(first: int, last: int) -> Tensor:
        """The samples that differ when the frames first … last - 1 do."""
        mixed = torch.cat([latents[:, :first], other[:, first:last], latents[:, last:]], 1)
        return (codec.decode(mixed) != audio).any(1)[0].nonzero()[:, 0]

    frames = latents.shape[1]
    after = changed(0, 1)
    back = int(after[-1]) + 1 - hop if len(after) else -hop
    aheads = []
    for frame in (1, frames // 3, frames // 2, frames - 1):
        found = changed(frame, frames)
        aheads.append((frame * hop - int(found[0]), int(found[0]) == 0) if len(found) else (-hop, False))
    ahead, whole = max(aheads)
    return Reach(back, back == length - hop), Reach(ahead, whole)


def differs(a: Tensor, b: Tensor) -> bool:
    return bool((a != b).any())


def heard_delay(codec: Codec) -> int | None:
    """How many samples later than the input the decoded audio resembles it most; None where it does not."""
    audio = noise(codec.identity, probe_samples(codec.identity), "delay")
    decoded = codec.decode(codec.encode(audio[None]))[0]
    n = 2 * audio.shape[1]
    spectra = torch.fft.rfft(decoded, n) * torch.fft.rfft(audio, n).conj()
    alike = torch.fft.irfft(spectra, n).sum(0)
    peak = int(alike.argmax())
    if not bool(alike[peak] > HEARD * alike.square().mean().sqrt()):
        return None
    return peak if peak < n // 2 else peak - n
