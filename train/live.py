"""Plays along with a mix, frame by frame, as on stage: encode a hop, let the generator answer, decode the answer.

What is generated at hop t is meant for hop t + anticipation; until the first such hop the player is silent, and what
would sound after the mix's end is not heard. Audio is float32 (channels, samples).
"""

from __future__ import annotations

import difflib
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prep.codecs import Codec, CodecIdentity, State
from train.batches import Scale
from train.checkpoint import Checkpoint, check_codec
from train.errors import RunError
from train.generator import AdaLN, Generator, GeneratorState
from train.sound import Audio

RELEASE_DB_S = 6.0  # how fast the limiter lets go
ATTACK = 256  # samples over which its gain moves, so that it does not click
PARTS = ("encode", "generate", "decode")


@dataclass(frozen=True)
class PlayerState:
    encoder: State
    generator: GeneratorState
    decoder: State
    gain: float  # the limiter's, at most 1


@dataclass(frozen=True)
class Player:
    """A codec, a generator and the instrument it plays: everything but the state, which is passed in and out."""

    codec: Codec
    identity: CodecIdentity  # the codec's, kept: reading it digests the weights
    generator: Generator
    mix_scale: Scale
    target_scale: Scale
    instrument: int
    anticipation_frames: int

    @classmethod
    def of(cls, codec: Codec, checkpoint: Checkpoint, instrument: str) -> Self:
        """Raises RunError for an instrument or a codec that the checkpoint does not know, or one that is not causal."""
        identity = codec.identity
        if not identity.causal:
            raise RunError(
                f"the codec {identity.name} is not causal: frame by frame it gives other latents than in training, "
                "where it heard the future; such a run can be scored, not played"
            )
        check_codec(checkpoint, identity.to_json(), "the player")
        number = find_instrument(instrument, checkpoint.classes)
        scales, ahead = (checkpoint.mix_scale, checkpoint.target_scale), checkpoint.config.batches.anticipation_frames
        return cls(codec, identity, settle(checkpoint.player()), *scales, number, ahead)

    def start(self) -> PlayerState:
        return PlayerState(self.codec.encode_state(1), self.generator.init_state(1), self.codec.decode_state(1), 1.0)

    @torch.inference_mode()
    def hop(self, heard: Tensor, noise: Tensor, state: PlayerState) -> tuple[Tensor, PlayerState, tuple[float, ...]]:
        """heard (1, channels, hop) and noise (1, 1, noise_dim) -> what is played (1, channels, hop), the state after,
        and the seconds that encoding, generating and decoding took."""
        clock = [time.perf_counter()]
        mix, encoder = self.codec.encode_step(heard, state.encoder)
        clock.append(time.perf_counter())
        instrument = torch.tensor([self.instrument])
        played, generator = self.generator.step(self.mix_scale.normalise(mix), noise, instrument, state.generator)
        clock.append(time.perf_counter())
        audio, decoder = self.codec.decode_step(self.target_scale.restore(played), state.decoder)
        audio, gain = limit(audio, state.gain, self.identity.sample_rate)
        clock.append(time.perf_counter())
        return audio, PlayerState(encoder, generator, decoder, gain), tuple(np.diff(clock).tolist())


class Again(nn.Module):
    """A layer that is asked only when its input changed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None or not torch.equal(self.last[0], x):
            self.last = x, self.layer(x)
        return self.last[1]


def settle(generator: Generator) -> Generator:
    """In place, for one performance after another: the instrument stays, and with it what every AdaLN makes of it,
    which takes a sixth of all weights. The numbers are the same."""
    for norm in [module for module in generator.modules() if isinstance(module, AdaLN)]:
        norm.scale = Again(norm.scale)  # type: ignore[assignment]
    return generator


def limit(audio: Tensor, gain: float, rate: int) -> tuple[Tensor, float]:
    """A hop held to full scale without looking ahead: the gain falls within the hop and rises by RELEASE_DB_S."""
    samples = audio.shape[-1]
    risen = gain * 10 ** (RELEASE_DB_S * samples / rate / 20)
    after = min(1.0, risen, 1 / max(1.0, float(audio.abs().max())))
    ramp = torch.full((samples,), after)
    ramp[:ATTACK] = torch.linspace(gain, after, min(ATTACK, samples))
    return audio * torch.minimum(ramp, 1 / audio.abs().clamp_min(1)), after


@dataclass(frozen=True)
class Latency:
    """Seconds a hop (hops, 3): encoding, generating, decoding; `hop_s` is how long a hop sounds."""

    seconds: NDArray[np.float64]
    hop_s: float

    @property
    def real_time_factor(self) -> float:
        """How much faster than the music, on average: above 1 it keeps up."""
        return float(self.hop_s / self.seconds.sum(axis=1).mean())

    def table(self) -> str:
        rows = dict(zip(PARTS, self.seconds.T, strict=True)) | {"all": self.seconds.sum(axis=1)}
        lines = [f"{'ms a frame':<12}{'mean':>8}{'median':>8}{'p99':>8}{'worst':>8}"]
        for name, row in rows.items():
            figures = (row.mean(), np.median(row), np.percentile(row, 99), row.max())
            lines.append(f"{name:<12}" + "".join(f"{1000 * float(figure):8.1f}" for figure in figures))
        keeps = f"real-time factor {self.real_time_factor:.1f} ({1000 * self.hop_s:.1f} ms a frame)"
        slow = int((rows["all"] > self.hop_s).sum())
        return "\n".join([*lines, f"{keeps}; {slow} of {len(self.seconds)} frames took longer than they sound"])


class Performance:
    """One performance under way: a mix at the codec's rate in blocks of any length in, hops of accompaniment out.

    `gain_db` brings the mix to the loudness of training's. The same seed plays the same. Memory does not grow but for
    three numbers a hop.
    """

    def __init__(self, player: Player, seed: int = 0, gain_db: float = 0.0) -> None:
        self.player = player
        self.heard = 0  # samples
        self.gain_db = gain_db
        self._noise = torch.Generator().manual_seed(seed)
        self._left = np.zeros((player.identity.channels, 0), np.float32)
        self._seconds = array("d")
        self._held, self._lowest = 0, 1.0
        silence = torch.zeros(1, player.identity.channels, player.identity.hop)
        player.hop(silence, self._draw(), player.start())  # the first call of all is slow: not on stage
        self._noise.manual_seed(seed)
        self._state = player.start()

    def hear(self, block: Audio) -> Iterator[Audio]:
        """The next (channels, samples); an answer (channels, hop) for each hop that it completes."""
        hop = self.player.identity.hop
        self.heard += block.shape[1]
        seen = np.concatenate([self._left, block], axis=1)
        whole = seen.shape[1] // hop * hop
        self._left = seen[:, whole:]
        for start in range(0, whole, hop):
            yield self._answer(seen[:, start : start + hop])

    def finish(self) -> Iterator[Audio]:
        """The answer to a last hop that was only begun, as if silence followed."""
        if missing := -self._left.shape[1] % self.player.identity.hop:
            self.heard -= missing
            yield from self.hear(np.zeros((len(self._left), missing), np.float32))

    def accompany(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        """The accompaniment of a whole mix, in blocks that together begin and end with it."""
        late = self.player.anticipation_frames * self.player.identity.hop
        due, played = np.zeros((self.player.identity.channels, late), np.float32), 0
        for answers in chain(map(self.hear, blocks), (self.finish(),)):  # a generator: it begins when it is its turn
            due = np.concatenate([due, *answers], axis=1)
            now, due = np.split(due, [self.heard - played], axis=1)
            played += now.shape[1]
            yield now

    def _draw(self) -> Tensor:
        return torch.randn(1, 1, self.player.generator.config.noise_dim, generator=self._noise)

    def _answer(self, hop: Audio) -> Audio:
        heard = torch.from_numpy(hop * np.float32(10 ** (self.gain_db / 20)))[None]
        audio, self._state, took = self.player.hop(heard, self._draw(), self._state)
        self._seconds.extend(took)
        self._held += self._state.gain < 1
        self._lowest = min(self._lowest, self._state.gain)
        return np.asarray(audio[0].numpy())

    @property
    def latency(self) -> Latency:
        identity = self.player.identity
        return Latency(np.array(self._seconds).reshape(-1, len(PARTS)), identity.hop / identity.sample_rate)

    @property
    def notes(self) -> list[str]:
        """What had to be done to what was played, a line each."""
        if not self._held:
            return []
        hops, most = len(self._seconds) // len(PARTS), -20 * np.log10(self._lowest)
        return [f"the limiter held back {self._held} of {hops} frames, by at most {most:.1f} dB"]


def find_instrument(name: str, classes: tuple[str, ...]) -> int:
    """The class's number, in any case. Raises RunError that names the nearest, and all."""
    folded = [known.casefold() for known in classes]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    near = classes[folded.index(difflib.get_close_matches(name.casefold(), folded, 1, 0.0)[0])]
    raise RunError(f"there is no instrument {name!r}; did you mean {near}? The classes are: {', '.join(classes)}")


def untaught(player: Player, checkpoint: Checkpoint) -> list[str]:
    """A line where the instrument was never a target in training."""
    name = checkpoint.classes[player.instrument]
    if checkpoint.targets.get(name):
        return []
    return [f"no {name} was among the targets in training; those were: {', '.join(checkpoint.targets)}"]
