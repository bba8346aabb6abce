"""One MIDI file to one Track folder of Slakh2100's layout (FACTS 7.1, 7.4).

Levels follow slakh-generation: each stem is brought to a peak of 0.8, measured, and normalised to -13 LUFS; then all
stems and their sum take one gain, so that the mix peaks at -1 dBFS or below. Loudness is that of the file's channels.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import soundfile
import yaml
from numpy.typing import NDArray

from prep.draws import rng_for
from prep.errors import Reject
from prep.instruments import DRUMS, slakh_class
from prep.midi import Part, Song, read_song, write_part
from prep.stages.loudness import integrated_lufs
from prep.stages.render import render

RATE_HZ = 44100
STEM_PEAK = 0.8
STEM_LUFS = -13.0
TARGET_PEAK_DBFS = -1.0
_HALF_LSB = 2.0**-16
_CEILING = 10.0 ** (TARGET_PEAK_DBFS / 20.0)


@dataclass(frozen=True)
class Job:
    """`name` is the source's path below the folder of MIDI; `folder` is the Track folder's final place."""

    source: Path
    name: str
    folder: Path
    soundfonts: tuple[Path, ...]
    channels: int
    seed: int


@dataclass(frozen=True)
class Rendered:
    """What one song gave. `silent` holds (stem, program) of the parts that the SoundFont left without sound;
    `fallbacks` counts the stems whose bank it lacks, played by their plain preset."""

    stems: int
    audio_s: float
    silent: tuple[tuple[str, int], ...]
    fallbacks: int


def inspect(path: Path) -> Song | Reject:
    """The song, or why it makes no multitrack."""
    song = read_song(path)
    if isinstance(song, Song) and len(song.parts) < 2:
        return Reject("one_instrument", "a multitrack needs two")
    return song


def render_song(job: Job) -> Rendered | Reject:
    """Writes `job.folder` beside its place and renames it, so that a folder that is there is whole."""
    song = inspect(job.source)
    if isinstance(song, Reject):
        return song
    uuid = hashlib.md5(job.source.read_bytes()).hexdigest()
    fonts = [_draw(job, f"{uuid}/{stem_name(i)}") for i in range(len(song.parts))]
    rendering = render(song.parts, fonts, job.channels, RATE_HZ)
    stems = rendering.stems
    levels = [_normalise(stem) for stem in stems]
    audible = [i for i, level in enumerate(levels) if level is not None]
    if len(audible) < 2:
        return Reject("silent", f"{len(audible)} of {len(stems)} stems can be heard with {job.soundfonts[0].name}")
    mix, overall_gain = _mix(stems, audible)
    partial = _fresh(job.folder.with_name(f".{job.folder.name}.partial"))
    shutil.copyfile(job.source, partial / "all_src.mid")
    for i, part in enumerate(song.parts):
        write_part(partial / "MIDI" / f"{stem_name(i)}.mid", song, part)
        if levels[i] is not None:
            _write_flac(partial / "stems" / f"{stem_name(i)}.flac", stems[i])
    _write_flac(partial / "mix.flac", mix)
    described = {stem_name(i): _describe(p, fonts[i], levels[i]) for i, p in enumerate(song.parts)}
    (partial / "metadata.yaml").write_text(yaml.safe_dump(_metadata(job, uuid, overall_gain, described)))
    partial.rename(job.folder)
    silent = tuple((stem_name(i), song.parts[i].program) for i in range(len(stems)) if levels[i] is None)
    heard_fallbacks = len(set(rendering.fallbacks) & set(audible))
    return Rendered(len(audible), mix.shape[1] / RATE_HZ, silent, heard_fallbacks)


def read_rendered(folder: Path) -> Rendered:
    """What an earlier run left in a Track folder; its fallbacks are not known any more and count as none."""
    stems = yaml.safe_load((folder / "metadata.yaml").read_text())["stems"]
    silent = tuple((name, stem["program_num"]) for name, stem in stems.items() if not stem["audio_rendered"])
    return Rendered(len(stems) - len(silent), soundfile.info(folder / "mix.flac").duration, silent, 0)


def stem_name(i: int) -> str:
    return f"S{i:02d}"


def _draw(job: Job, stem: str) -> Path:
    return job.soundfonts[int(rng_for(job.seed, stem, "soundfont").integers(len(job.soundfonts)))]


def _normalise(stem: NDArray[np.float32]) -> float | None:
    """In place, to -13 LUFS; returns the loudness at a peak of 0.8, or None for what would be stored as zeros."""
    peak = max(float(stem.max()), -float(stem.min()))
    if peak < _HALF_LSB:
        return None
    # the peak comes first, as in Slakh, and so even a faint click is above the loudness gate of -70 LUFS
    stem *= STEM_PEAK / peak
    loudness = integrated_lufs(stem, RATE_HZ)
    stem *= 10.0 ** ((STEM_LUFS - loudness) / 20.0)
    return loudness


def _mix(stems: NDArray[np.float32], audible: list[int]) -> tuple[NDArray[np.float64], float]:
    """Applies the overall gain to the stems in place, and returns their sum. Slakh looks at the mix's peak only; a
    stem may be louder than the mix where others cancel it, so here it counts too."""
    mix = np.zeros(stems.shape[1:], np.float64)
    peak = 0.0
    for i in audible:
        mix += stems[i]
        peak = max(peak, float(stems[i].max()), -float(stems[i].min()))
    peak = max(peak, float(mix.max()), -float(mix.min()))
    gain = _CEILING / peak if peak >= _CEILING else 1.0
    if gain != 1.0:
        mix[:] = 0.0
        for i in audible:
            stems[i] *= gain
            mix += stems[i]
    return mix, gain


def _write_flac(path: Path, audio: NDArray[Any]) -> None:
    pcm = np.rint(audio * 32768.0).astype(np.int16)
    soundfile.write(path, pcm.T, RATE_HZ, subtype="PCM_16", format="FLAC")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("MIDI", "stems"):
        (folder / name).mkdir(parents=True)
    return folder


def _describe(part: Part, soundfont: Path, level: float | None) -> dict[str, Any]:
    drums = part.program == DRUMS
    described: dict[str, Any] = {
        "audio_rendered": level is not None,
        "inst_class": slakh_class(part.program),
        "is_drum": drums,
        "midi_program_name": "Drums" if drums else pretty_midi.program_to_instrument_name(part.program),
        "midi_saved": True,
        "plugin_name": soundfont.name if level is not None else "None",
        "program_num": part.program,
    }
    return described if level is None else described | {"integrated_loudness": level}


def _metadata(job: Job, uuid: str, overall_gain: float, stems: dict[str, Any]) -> dict[str, Any]:
    return {
        "UUID": uuid,
        "audio_dir": "stems",
        "lmd_midi_dir": job.name,
        "midi_dir": "MIDI",
        "normalization_factor": STEM_LUFS,
        "normalized": True,
        "overall_gain": overall_gain,
        "stems": stems,
        "target_peak": TARGET_PEAK_DBFS,
    }
