"""Plays along with a mix, frame by frame, as on stage: encode a hop, let the generator answer, decode the answer.

What is generated at hop t sounds at hop t + anticipation; until the first such hop the player is silent, and what would
sound after the mix's end is not heard. Audio is float32 (channels, samples).
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from prep.codecs import Codec, CodecIdentity, State
from train.batches import Scale
from train.checkpoint import Checkpoint, check_codec
from train.errors import AudioError, RunError
from train.generator import Generator, GeneratorState

Audio = NDArray[np.float32]
RELEASE_DB_S = 6.0  # how fast the limiter lets go
ATTACK = 256  # samples over which its gain moves, so that it does not click


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
        parts = {"encode": 0, "generate": 1, "decode": 2}
        rows = {name: self.seconds[:, column] for name, column in parts.items()} | {"all": self.seconds.sum(axis=1)}
        lines = [f"{'ms a frame':<12}{'mean':>8}{'median':>8}{'p99':>8}{'worst':>8}"]
        for name, row in rows.items():
            figures = (row.mean(), np.median(row), np.percentile(row, 99), row.max())
            lines.append(f"{name:<12}" + "".join(f"{1000 * float(figure):8.1f}" for figure in figures))
        keeps = f"real-time factor {self.real_time_factor:.1f} ({1000 * self.hop_s:.1f} ms a frame)"
        late = int((rows["all"] > self.hop_s).sum())
        return "\n".join([*lines, f"{keeps}; {late} of {len(self.seconds)} frames were late"])


@dataclass(frozen=True)
class Performance:
    """`audio` at `rate` begins and ends with the mix; `notes` say what was done to the input, a line each."""

    audio: Audio
    rate: int
    latency: Latency
    notes: tuple[str, ...]


def play(codec: Codec, checkpoint: Checkpoint, mix: Audio, rate: int, instrument: str, seed: int = 0) -> Performance:
    """Accompany `mix` (channels, samples) at `rate` Hz, of any level and number of channels, with an instrument class.

    The same seed plays the same. Raises AudioError for a mix that is empty or not finite, RunError for an instrument
    or a codec that the checkpoint does not know.
    """
    identity = codec.identity
    check_codec(checkpoint, identity.to_json(), "the player")
    heard, notes = _fit(mix, rate, identity)
    number = find_instrument(instrument, checkpoint.classes)
    if not checkpoint.targets.get(checkpoint.classes[number]):
        learnt = ", ".join(checkpoint.targets)
        notes.append(f"no {checkpoint.classes[number]} was among the targets in training; those were: {learnt}")
    player = Player(codec, identity, checkpoint.player(), checkpoint.mix_scale, checkpoint.target_scale, number)
    played, seconds, gains = _perform(player, torch.from_numpy(heard), seed)
    if held := int((gains < 1).sum()):
        notes.append(
            f"the limiter held back {held} of {len(gains)} frames, by at most {-20 * np.log10(gains.min()):.1f} dB"
        )
    late = checkpoint.config.batches.anticipation_frames * identity.hop
    audio = np.concatenate([np.zeros((len(played), late), np.float32), played], axis=1)[:, : heard.shape[1]]
    latency = Latency(seconds, identity.hop / identity.sample_rate)
    return Performance(audio, identity.sample_rate, latency, tuple(notes))


def _perform(player: Player, heard: Tensor, seed: int) -> tuple[Audio, NDArray[np.float64], NDArray[np.float64]]:
    """(channels, samples) -> what was played (channels, hops * hop), seconds (hops, 3), the limiter's gains (hops,)."""
    hop, noise_dim = player.identity.hop, player.generator.config.noise_dim
    hops = -(-heard.shape[1] // hop)
    heard = torch.nn.functional.pad(heard, (0, hops * hop - heard.shape[1]))
    noise = torch.randn(hops, 1, 1, noise_dim, generator=torch.Generator().manual_seed(seed))
    player.hop(heard[None, :, :hop], noise[0], player.start())  # the first call of all is slow: not on stage
    state, played, seconds, gains = player.start(), [], [], []
    for number in range(hops):
        audio, state, took = player.hop(heard[None, :, number * hop : (number + 1) * hop], noise[number], state)
        played.append(audio[0])
        seconds.append(took)
        gains.append(state.gain)
    return torch.cat(played, dim=1).numpy(), np.array(seconds), np.array(gains)


def find_instrument(name: str, classes: tuple[str, ...]) -> int:
    """The class's number, in any case. Raises RunError that names the nearest, and all."""
    folded = [known.casefold() for known in classes]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    near = classes[folded.index(difflib.get_close_matches(name.casefold(), folded, 1, 0.0)[0])]
    raise RunError(f"there is no instrument {name!r}; did you mean {near}? The classes are: {', '.join(classes)}")


def _fit(mix: Audio, rate: int, wanted: CodecIdentity) -> tuple[Audio, list[str]]:
    """The mix at the codec's rate and with its channels, and what had to be done for that."""
    if mix.size == 0:
        raise AudioError("the mix is empty; give one with sound in it")
    if not np.isfinite(mix).all():
        raise AudioError(f"the mix holds {int((~np.isfinite(mix)).sum())} samples of NaN or infinity; export it again")
    notes = []
    if rate != wanted.sample_rate:
        mix = soxr.resample(mix.T, rate, wanted.sample_rate).T
        notes.append(f"the mix was resampled from {rate} Hz to the codec's {wanted.sample_rate} Hz")
    if len(mix) != wanted.channels:
        notes.append(f"the mix's {len(mix)} channels were averaged to one, on all {wanted.channels} of the codec's")
        mix = np.repeat(mix.mean(axis=0, keepdims=True), wanted.channels, axis=0)
    return np.ascontiguousarray(mix, dtype=np.float32), notes


def read_mix(path: Path) -> tuple[Audio, int]:
    """A sound file as float32 (channels, samples), and its rate. Raises AudioError."""
    if not path.is_file():
        raise AudioError(f"{path} is not a file; give --mix a WAV or FLAC file")
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as audio ({error.error_string}); give --mix a WAV or FLAC file"
        ) from None
    return np.ascontiguousarray(audio.T), int(rate)


def write_wav(path: Path, audio: Audio, rate: int) -> str | None:
    """16-bit WAV of (channels, samples); over full scale it is attenuated, never clipped, and a line says so."""
    peak = float(np.abs(audio).max(initial=0.0))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio.T / max(1.0, peak), rate, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path} cannot be written ({error}); choose another --out") from None
    return f"{path.name} was attenuated by {20 * np.log10(peak):.1f} dB, to full scale" if peak > 1 else None
