"""The codec's songs: mixes and their stems, from a corpus in Slakh2100's layout."""

from __future__ import annotations

import hashlib
import json
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
    rate: int


def find_songs(root: Path, rate: int) -> list[Song]:
    """Every folder below `root` that holds mix.flac and stems/*.flac, sorted. Raises TrainError when there is none."""
    songs = []
    for mix in sorted(root.glob("**/mix.flac")):
        info = sf.info(mix)
        if info.samplerate != rate:
            raise TrainError(f"{mix} is at {info.samplerate} Hz, the codec at {rate}. Render the corpus at {rate} Hz.")
        songs.append(Song(mix, tuple(sorted((mix.parent / "stems").glob("*.flac"))), info.frames, rate))
    if not songs:
        raise TrainError(
            f"no mix.flac below {root}. Make a corpus: prep compose MIDI --songs 40, then prep render MIDI {root}."
        )
    return songs


def digest_of(songs: list[Song], root: Path) -> str:
    """Of their names below `root`, the stems' and the lengths: where the corpus lies may change."""
    described = [[song.mix.relative_to(root).as_posix(), [s.name for s in song.stems], song.samples] for song in songs]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def read_stereo(path: Path, start: int = 0, samples: int = -1) -> Audio:
    """(2, samples) from a mono or stereo file. Raises TrainError for any other."""
    try:
        audio, _ = sf.read(path, frames=samples, start=start, dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        raise TrainError(f"{path} cannot be read ({error.error_string}). Render or fetch it again.") from error
    if audio.shape[1] > 2:
        raise TrainError(f"{path} has {audio.shape[1]} channels; the codec takes one or two. Mix it down.")
    return np.ascontiguousarray(np.broadcast_to(audio.T, (2, len(audio))))
