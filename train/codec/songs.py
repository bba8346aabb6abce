"""Crops of audio for the codec: mixes as they are, and fresh sums of stems, from a corpus in Slakh2100's layout.

Crop number i is a pure function of (seed, i).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from train.errors import TrainError

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Song:
    mix: Path
    stems: tuple[Path, ...]
    samples: int


def find_songs(root: Path, rate: int) -> list[Song]:
    """Every folder below `root` that holds mix.flac and stems/*.flac, sorted. Raises TrainError when there is none."""
    songs = []
    for mix in sorted(root.glob("**/mix.flac")):
        info = sf.info(mix)
        if info.samplerate != rate:
            raise TrainError(f"{mix} is at {info.samplerate} Hz, the codec at {rate}. Render the corpus at {rate} Hz.")
        songs.append(Song(mix, tuple(sorted((mix.parent / "stems").glob("*.flac"))), info.frames))
    if not songs:
        raise TrainError(
            f"no mix.flac below {root}. Make a corpus: prep compose MIDI --songs 40, then prep render MIDI {root}."
        )
    return songs


def read_stereo(path: Path, start: int = 0, samples: int = -1) -> Audio:
    """(2, samples) from a mono or stereo file. Raises TrainError for any other."""
    try:
        audio, _ = sf.read(path, frames=samples, start=start, dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        raise TrainError(f"{path} cannot be read ({error.error_string}). Render or fetch it again.") from error
    if audio.shape[1] > 2:
        raise TrainError(f"{path} has {audio.shape[1]} channels; the codec takes one or two. Mix it down.")
    return np.ascontiguousarray(np.broadcast_to(audio.T, (2, len(audio))))


def draw_crop(songs: list[Song], samples: int, seed: int, index: int) -> Audio:
    """(2, samples): a mix, or a sum of panned stems, at a drawn level between -36 and -12 dBFS RMS; some of it mono."""
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    song = songs[rng.integers(len(songs))]
    start = int(rng.integers(max(1, song.samples - samples)))
    audio = np.zeros((2, samples), np.float32)
    if rng.random() < 0.4 or not song.stems:
        _add(audio, read_stereo(song.mix, start, samples))
    else:
        count = int(rng.integers(1, min(6, len(song.stems)) + 1))
        for stem in rng.choice(len(song.stems), count, replace=False):
            left, right = np.sqrt(2) * np.array([np.cos(pan := rng.uniform(0.25, 0.75) * np.pi / 2), np.sin(pan)])
            gain = np.float32(10 ** (rng.uniform(-6, 6) / 20))
            _add(audio, gain * np.array([[left], [right]], np.float32) * read_stereo(song.stems[stem], start, samples))
    if rng.random() < 0.3:
        audio[:] = audio.mean(0)
    if rng.random() < 0.5:
        audio = audio[::-1]
    rms = float(np.sqrt(np.mean(audio**2)))
    return np.ascontiguousarray(audio * np.float32(10 ** (rng.uniform(-36, -12) / 20) / max(rms, 1e-3)))


def _add(audio: Audio, more: Audio) -> None:
    audio[:, : more.shape[1]] += more
