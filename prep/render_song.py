"""One MIDI file to one Track folder of Slakh2100's layout (FACTS 7.1, 7.4), and one more for each rendition.

Levels follow slakh-generation: each stem is brought to a peak of 0.8, measured, and normalised to -13 LUFS; then all
stems and their sum take one gain, so that the mix peaks at -1 dBFS or below. Loudness is that of the file's channels.
"""

import shutil
from dataclasses import dataclass, field
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
from prep.midi import Part, Song, read_song
from prep.midi_write import write_part, write_song
from prep.names import printable
from prep.renditions import make_rendition
from prep.stages.augment import Augmentation
from prep.stages.loudness import integrated_lufs
from prep.stages.render import TAIL_S, render

RATE_HZ = 44100
STEM_PEAK = 0.8
STEM_LUFS = -13.0
TARGET_PEAK_DBFS = -1.0
# all stems of a song are in memory at once, because one gain for all depends on their sum
MAX_BYTES = 16 * 2**30
_WRITTEN_AT_ONCE = 1 << 20  # samples
_HALF_LSB = 2.0**-16
_CEILING = 10.0 ** (TARGET_PEAK_DBFS / 20.0)


@dataclass(frozen=True)
class Job:
    """`name` is the source's path below the folder of MIDI, `digest` that of its bytes; `folder` is the Track folder's
    final place. Of `renditions` the first is `folder` with "_r1" behind its name."""

    source: Path
    name: str
    digest: str
    folder: Path
    soundfonts: tuple[Path, ...]
    channels: int
    seed: int
    renditions: tuple[Augmentation, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """What one song, or one rendition of it, gave. `silent` holds (stem, program) of the parts that the SoundFont left
    without sound; `fallbacks` counts the stems whose bank it lacks, played by their plain preset; `folded` the notes of
    a rendition that were put an octave back."""

    stems: int
    audio_s: float
    silent: tuple[tuple[str, int], ...]
    fallbacks: int
    folded: int = 0


@dataclass(frozen=True)
class _Take:
    """A song as it will stand in a Track folder; `extra` is what metadata says beyond Slakh's."""

    job: Job
    folder: Path
    song: Song
    fonts: tuple[Path, ...]
    folded: int = 0
    extra: dict[str, str] = field(default_factory=dict)


def inspect(path: Path, channels: int) -> Song | Reject:
    """The song, or why it makes no multitrack."""
    song = read_song(path)
    if isinstance(song, Song) and len(song.parts) < 2:
        return Reject("one_instrument", "a multitrack needs two")
    return song if isinstance(song, Reject) else _too_large(song, channels) or song


def render_song(job: Job) -> list[Rendered | Reject]:
    """The song's result, then one for each of its renditions; of a song that is left out there are none. Folders that
    are there are read: each is written beside its place and renamed, so it is whole."""
    folders = [job.folder, *(rendition_folder(job.folder, k) for k in range(1, len(job.renditions) + 1))]
    if all(folder.is_dir() for folder in folders):
        return [read_rendered(folder) for folder in folders]
    song = inspect(job.source, job.channels)
    if isinstance(song, Reject):
        return [song]
    results: list[Rendered | Reject] = []
    for k, folder in enumerate(folders):
        take = _take(job, folder, song, k) if not folder.is_dir() else None
        results.append(read_rendered(folder) if take is None else take if isinstance(take, Reject) else _render(take))
        if isinstance(results[0], Reject):
            break
    return results


def rendition_folder(folder: Path, k: int) -> Path:
    return folder.with_name(f"{folder.name}_r{k}")


def _take(job: Job, folder: Path, song: Song, k: int) -> _Take | Reject:
    """The song itself for `k` 0, otherwise its k-th rendition."""
    originals = [_draw(job, i, job.soundfonts, "soundfont") for i in range(len(song.parts))]
    if k == 0:
        return _Take(job, folder, song, tuple(originals))
    augmentation = job.renditions[k - 1]
    made = make_rendition(song, augmentation)
    if isinstance(made, Reject):
        return made
    # in the voice of another SoundFont than the original's, where there is one
    others = [tuple(font for font in job.soundfonts if font != had) or job.soundfonts for had in originals]
    fonts = tuple(_draw(job, i, choice, f"soundfont:{k}") for i, choice in enumerate(others))
    extra = {"rendition_of": job.folder.name, "augmentation": augmentation.to_json()}
    return _too_large(made[0], job.channels) or _Take(job, folder, made[0], fonts, made[1], extra)


def _draw(job: Job, part: int, fonts: tuple[Path, ...], stage: str) -> Path:
    return fonts[int(rng_for(job.seed, f"{job.digest}/{stem_name(part)}", stage).integers(len(fonts)))]


def _too_large(song: Song, channels: int) -> Reject | None:
    size = len(song.parts) * channels * (song.length_s + TAIL_S) * RATE_HZ * 4
    if size <= MAX_BYTES:
        return None
    what = f"{len(song.parts)} instruments of {song.length_s:.0f} s are {size / 2**30:.0f} GiB of audio"
    return Reject("too_large", f"{what}; at most {MAX_BYTES / 2**30:.0f} GiB are rendered")


def _render(take: _Take) -> Rendered | Reject:
    job, parts = take.job, take.song.parts
    try:
        rendering = render(parts, take.fonts, job.channels, RATE_HZ)
    except MemoryError:
        return Reject("too_large", f"{len(parts)} instruments of {take.song.length_s:.0f} s do not fit into memory")
    stems = rendering.stems
    levels = [_normalise(stem) for stem in stems]
    audible = [i for i, level in enumerate(levels) if level is not None]
    if len(audible) < 2:
        return Reject("silent", f"{len(audible)} of {len(stems)} stems can be heard with {job.soundfonts[0].name}")
    mix, overall_gain = _mix(stems, audible)
    partial = _fresh(take.folder.with_name(f".{take.folder.name}.partial"))
    if take.extra:
        write_song(partial / "all_src.mid", take.song)
    else:
        shutil.copyfile(job.source, partial / "all_src.mid")
    for i, part in enumerate(parts):
        write_part(partial / "MIDI" / f"{stem_name(i)}.mid", take.song, part)
        if levels[i] is not None:
            _write_flac(partial / "stems" / f"{stem_name(i)}.flac", stems[i])
    _write_flac(partial / "mix.flac", mix)
    described = {stem_name(i): _describe(p, take.fonts[i], levels[i]) for i, p in enumerate(parts)}
    metadata = _metadata(job, overall_gain, described) | take.extra
    (partial / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    partial.rename(take.folder)
    silent = tuple((stem_name(i), parts[i].program) for i in range(len(stems)) if levels[i] is None)
    heard_fallbacks = len(set(rendering.fallbacks) & set(audible))
    return Rendered(len(audible), mix.shape[1] / RATE_HZ, silent, heard_fallbacks, take.folded)


def read_rendered(folder: Path) -> Rendered:
    """What an earlier run left in a Track folder; its fallbacks are not known any more and count as none."""
    stems = yaml.safe_load((folder / "metadata.yaml").read_text())["stems"]
    silent = tuple((name, stem["program_num"]) for name, stem in stems.items() if not stem["audio_rendered"])
    return Rendered(len(stems) - len(silent), soundfile.info(folder / "mix.flac").duration, silent, 0)


def stem_name(i: int) -> str:
    return f"S{i:02d}"


def _normalise(stem: NDArray[np.float32]) -> float | None:
    """In place, to -13 LUFS; returns the loudness at a peak of 0.8, or None for what would be stored as zeros."""
    sound = _sounding(stem)
    peak = _peak(sound)
    if peak < _HALF_LSB:
        return None
    # the peak comes first, as in Slakh, and so even a faint click is above the loudness gate of -70 LUFS
    sound *= STEM_PEAK / peak
    loudness = integrated_lufs(stem, RATE_HZ)
    sound *= 10.0 ** ((STEM_LUFS - loudness) / 20.0)
    return loudness


def _sounding(stem: NDArray[np.float32]) -> NDArray[np.float32]:
    """The stem without the silence around it, which is never written to and so takes no memory."""
    heard: NDArray[np.bool_] = np.asarray(stem.any(axis=0))
    return stem[:, int(heard.argmax()) : len(heard) - int(heard[::-1].argmax())]


def _peak(audio: NDArray[Any]) -> float:
    return max(float(audio.max()), -float(audio.min()))


def _mix(stems: NDArray[np.float32], audible: list[int]) -> tuple[NDArray[np.float64], float]:
    """Applies the overall gain to the stems in place, and returns their sum. Slakh looks at the mix's peak only; a
    stem may be louder than the mix where others cancel it, so here it counts too."""
    mix = np.zeros(stems.shape[1:], np.float64)
    peak = 0.0
    for i in audible:
        mix += stems[i]
        peak = max(peak, _peak(stems[i]))
    peak = max(peak, _peak(mix))
    gain = _CEILING / peak if peak >= _CEILING else 1.0
    if gain != 1.0:
        mix[:] = 0.0
        for i in audible:
            sound = _sounding(stems[i])
            sound *= gain
            mix += stems[i]
    return mix, gain


def _write_flac(path: Path, audio: NDArray[Any]) -> None:
    with soundfile.SoundFile(path, "w", RATE_HZ, audio.shape[0], "PCM_16", format="FLAC") as file:
        for at in range(0, audio.shape[1], _WRITTEN_AT_ONCE):
            file.write(np.rint(audio[:, at : at + _WRITTEN_AT_ONCE] * 32768.0).astype(np.int16).T)


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
        "plugin_name": printable(soundfont.name) if level is not None else "None",
        "program_num": part.program,
    }
    return described if level is None else described | {"integrated_loudness": level}


def _metadata(job: Job, overall_gain: float, stems: dict[str, Any]) -> dict[str, Any]:
    return {
        "UUID": job.digest,
        "audio_dir": "stems",
        "lmd_midi_dir": printable(job.name),
        "midi_dir": "MIDI",
        "normalization_factor": STEM_LUFS,
        "normalized": True,
        "overall_gain": overall_gain,
        "stems": stems,
        "target_peak": TARGET_PEAK_DBFS,
    }
