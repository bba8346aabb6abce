"""What codecs are scored on: mixes in Slakh2100's layout, with their MIDI, or plain audio files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile as sf
import soxr
import torch
import yaml
from torch import Tensor

from train.codec.notes import Notes
from train.codec.songs import find_songs, read_stereo
from train.errors import TrainError

PLAIN = (".wav", ".flac")


@dataclass(frozen=True)
class Clip:
    """The middle of a mix, in whole frames of the codec."""

    name: str
    audio: Tensor  # (2, samples)
    notes: Notes | None


@dataclass(frozen=True)
class Corpus:
    label: str
    soundfont: str  # "" where it is not known
    clips: list[Clip]


def read_corpus(path: Path, rate: int, hop: int, seconds: float) -> Corpus:
    """Up to `seconds` from the middle of each mix: a WAV or FLAC, those in a folder, or a corpus in Slakh2100's layout.

    Plain files are resampled, a corpus has to be at `rate`. Raises TrainError where there is no mix, or one is shorter
    than a frame."""
    if not path.exists():
        raise TrainError(f"{path} does not exist. --data is a corpus in Slakh2100's layout, or WAV or FLAC files.")
    plain = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in PLAIN)
    if plain:
        clips = [_clip(p, rate, hop, seconds, p.stem) for p in plain]
        return Corpus(path.stem if path.is_file() else path.name, "", clips)
    mixes = [song.mix for song in find_songs(path, rate)]
    clips = [_clip(mix, rate, hop, seconds, mix.parent.name) for mix in mixes]
    return Corpus(
        path.resolve().name if path.name in ("", ".", "..") else path.name, _soundfont(mixes[0].parent), clips
    )


def _clip(path: Path, rate: int, hop: int, seconds: float, name: str) -> Clip:
    try:
        info = sf.info(path)
    except sf.LibsndfileError as error:
        raise TrainError(f"{path} cannot be read ({error.error_string}). Render or fetch it again.") from error
    wanted = int(seconds * info.samplerate)
    start = max(0, info.frames - wanted) // 2
    audio = read_stereo(path, start, wanted)
    if info.samplerate != rate:
        audio = np.ascontiguousarray(soxr.resample(audio.T, info.samplerate, rate).T)
    if audio.shape[1] < hop:
        raise TrainError(f"{path} is shorter than a frame of {hop} samples. Leave it out.")
    whole = torch.from_numpy(audio[:, : audio.shape[1] // hop * hop])
    return Clip(name, whole, _notes(path.parent / "all_src.mid", start / info.samplerate))


def _notes(path: Path, start_s: float) -> Notes | None:
    """From `start_s` on."""
    if not path.is_file():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tempo changes on later tracks, which it reads all the same
        midi = pretty_midi.PrettyMIDI(str(path))
    found = [(n.start - start_s, -1 if i.is_drum else n.pitch) for i in midi.instruments for n in i.notes]
    found = sorted(note for note in found if note[0] >= 0)
    onsets, pitches = zip(*found, strict=True) if found else ((), ())
    return Notes(np.array(onsets, np.float64), np.array(pitches, np.int64))


def _soundfont(folder: Path) -> str:
    if not (folder / "metadata.yaml").is_file():
        return ""
    stems = yaml.safe_load((folder / "metadata.yaml").read_text()).get("stems") or {}
    return next((str(stem.get("plugin_name", "")) for stem in stems.values()), "")
