"""Plays along with a sound file, which is read, played to and written a second at a time, whatever its length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from prep.codecs import CodecIdentity
from train.errors import AudioError
from train.live import Performance, Player
from train.sound import Audio, Fit, Meter, gain_db, level_note


@dataclass(frozen=True)
class Measured:
    """A sound file that is sound: its rate, its channels, and how loud it is on the codec's channels."""

    path: Path
    rate: int
    channels: int
    lufs: float

    def fitted(self, wanted: CodecIdentity) -> tuple[Fit, Iterator[Audio]]:
        """Its blocks as the codec takes them."""
        fit = Fit(self.rate, self.channels, wanted)

        def blocks() -> Iterator[Audio]:
            yield from (fit(block) for block in _blocks(self.path))
            yield fit(np.zeros((self.channels, 0), np.float32), last=True)

        return fit, blocks()


def measure(path: Path, wanted: CodecIdentity) -> Measured:
    """Reads the file once through. Raises AudioError for what cannot be read, is empty or not finite."""
    if not path.is_file():
        raise AudioError(f"{path} is not a file; give --mix a WAV or FLAC file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
        fit, meter = Fit(rate, channels, wanted), Meter(wanted.sample_rate, wanted.channels)
        samples, wrong = 0, 0  # at the codec's rate, at which the shortest of files are none
        for block in _blocks(path):
            wrong += int((~np.isfinite(block)).sum())
            if not wrong:
                fitted = fit(block)
                samples += fitted.shape[1]
                meter.feed(fitted)
        samples += fit(np.zeros((channels, 0), np.float32), last=True).shape[1]
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as audio ({error.error_string}); give --mix a WAV or FLAC file"
        ) from None
    if wrong:
        raise AudioError(f"the mix holds {wrong} samples of NaN or infinity; export it again")
    if not samples:
        raise AudioError("the mix is empty; give one with sound in it")
    return Measured(path, rate, channels, meter.lufs)


def play(
    player: Player, mix: Path, out: Path, seed: int = 0, input_lufs: float | None = None
) -> tuple[Performance, list[str]]:
    """Accompany `mix` in a 16-bit WAV that begins and ends with it; the performance, and what had to be done.

    The mix is brought to the loudness that training's mixes have about them: from `input_lufs` if that is given, from
    what it measures as a whole otherwise. The limiter keeps what is written within full scale.
    """
    measured = measure(mix, player.identity)
    if out.exists() and out.samefile(mix):  # which is read while that is written
        raise AudioError(f"{out} is the mix itself, and would be lost; choose another --out")
    lufs = measured.lufs if input_lufs is None else input_lufs
    fit, blocks = measured.fitted(player.identity)
    performance = Performance(player, seed, gain_db(lufs))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(
            out, "w", player.identity.sample_rate, player.identity.channels, subtype="PCM_16", format="WAV"
        ) as file:
            for audio in performance.accompany(blocks):
                file.write(audio.T)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{out} cannot be written ({error}); choose another --out") from None
    return performance, [*fit.notes, level_note(lufs), *performance.notes]


def _blocks(path: Path) -> Iterator[Audio]:
    """A second each."""
    with soundfile.SoundFile(path) as file:
        for block in file.blocks(file.samplerate, dtype="float32", always_2d=True):
            yield np.ascontiguousarray(block.T)
