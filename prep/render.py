"""A folder of General MIDI files to a corpus in Slakh2100's layout: OUT/{train,validation,test}/TrackNNNNN.

Tracks are numbered over the sorted file names, and a rejected file leaves its number out. A song's split depends on its
bytes alone: a digest below 0.1 is test, below 0.2 validation. Where that leaves a split of three songs or more empty,
the nearest digests are moved there; fewer songs than three are all for training. Copies of one file share a digest and
so never cross splits. Renditions, TrackNNNNN_r1 and on, are made of training songs only.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pretty_midi
from tqdm import tqdm

from prep.config import Augment
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.multitrack import SPLITS
from prep.render_song import Job, inspect, render_song
from prep.render_summary import RenderSummary, row_of, row_rejected, summarise
from prep.renditions import draw_renditions, used_settings
from prep.stages.render import version

RECEIPT = "render.json"
_TEST, _VALIDATION = 0.1, 0.2


@dataclass(frozen=True)
class _Options:
    fonts: tuple[Path, ...]
    channels: int
    seed: int
    renditions: int
    augment: Augment

    def fingerprint(self) -> dict[str, Any]:
        """Without renditions it says nothing of them, as before there were any."""
        drawn = {"renditions": self.renditions, "augment": used_settings(self.augment)} if self.renditions else {}
        return {"channels": self.channels, "seed": self.seed, **drawn}


def default_soundfont() -> Path:
    """TimGM6mb, which comes with pretty_midi (6 MB, GPL-2)."""
    return Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"


def render_corpus(
    midi_dir: Path,
    out: Path,
    *,
    soundfonts: Sequence[Path] = (),
    channels: int = 1,
    workers: int | None = None,
    seed: int = 0,
    renditions: int = 0,
    augment: Augment | None = None,
    progress: bool = True,
) -> RenderSummary:
    """Renders every .mid and .midi file below `midi_dir`, mono as Slakh unless `channels` is 2.

    With several SoundFonts each stem draws its own, by a digest of (seed, song, stem). Each song of the train split has
    `renditions` more Track folders, transposed and re-timed as `augment` says (its own `renditions` is not looked at).
    The bytes written do not depend on `workers`. A run over its own finished output does nothing; over its own
    unfinished output it goes on. Raises PrepError for a folder without MIDI, an output that holds something else, a
    missing SoundFont or FluidSynth."""
    began = time.monotonic()
    fonts = _checked_fonts(soundfonts)
    if channels not in (1, 2):
        raise PrepError(f"channels is {channels}; it must be 1 (mono, as Slakh) or 2 (stereo).")
    options = _Options(fonts, channels, seed, renditions, augment or Augment())
    found = _midi_files(midi_dir)
    digests = {name: _digest(path) for name, path in found.items()}
    fingerprint = _fingerprint(digests, options)
    finished = _resume(out, fingerprint)
    if finished is not None:
        return summarise(finished, midi_dir, time.monotonic() - began, already_done=True)
    count = min(workers or os.cpu_count() or 1, len(found))
    rejects, jobs = _plan(found, digests, out, options, count)
    bar = tqdm(local(render_song, jobs, count), "render", len(jobs), unit="song", disable=not progress)
    rows = {name: row_rejected(reject) for name, reject in rejects.items()}
    rows |= {job.name: row_of(job, results) for job, results in zip(jobs, bar, strict=True)}
    record = {"fingerprint": fingerprint, "songs": {name: rows[name] for name in found}}
    _write_json(out / RECEIPT, record)
    return summarise(record, midi_dir, time.monotonic() - began, already_done=False)


def assign_splits(digests: dict[str, str]) -> dict[str, str]:
    """Name to split, from name to hexadecimal digest of the content; see the module for the rule."""
    place = {digest: int(digest[:16], 16) / 16.0**16 for digest in digests.values()}
    order = sorted(place, key=lambda digest: (place[digest], digest))
    split = {d: "test" if place[d] < _TEST else "validation" if place[d] < _VALIDATION else "train" for d in order}
    if len(order) < 3:
        return dict.fromkeys(digests, "train")
    counts = Counter(split.values())
    for wanted, nearest in (("test", order), ("validation", order), ("train", order[::-1])):
        if not counts[wanted]:
            spare = next(digest for digest in nearest if counts[split[digest]] > 1)
            counts.update({split[spare]: -1, wanted: 1})
            split[spare] = wanted
    return {name: split[digest] for name, digest in digests.items()}


def _checked_fonts(soundfonts: Sequence[Path]) -> tuple[Path, ...]:
    fonts = tuple(Path(font) for font in soundfonts) or (default_soundfont(),)
    for font in fonts:
        if not font.is_file():
            raise PrepError(f"the SoundFont {font} does not exist. Pass an .sf2 or .sf3 file, or none for TimGM6mb.")
        with font.open("rb") as file:
            head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"sfbk":
            raise PrepError(f"{font} is not a SoundFont. Pass an .sf2 or .sf3 file, or none for TimGM6mb.")
    return fonts


def _midi_files(midi_dir: Path) -> dict[str, Path]:
    if not midi_dir.is_dir():
        raise PrepError(f"{midi_dir} is not a folder. Pass a folder of .mid files, such as `prep compose` writes.")
    named = (path for path in midi_dir.rglob("*") if path.suffix.lower() in (".mid", ".midi"))
    # a link to nothing is an input as well, and is listed as unreadable
    files = [path for path in named if path.is_file() or (path.is_symlink() and not path.exists())]
    if not files:
        raise PrepError(f"{midi_dir} holds no .mid file. Pass a folder of .mid files, such as `prep compose` writes.")
    return {path.relative_to(midi_dir).as_posix(): path for path in sorted(files)}


def _digest(path: Path) -> str | Reject:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        return Reject("unreadable", error.strerror or type(error).__name__)


def _fingerprint(digests: dict[str, str | Reject], options: _Options) -> dict[str, Any]:
    prints = []
    for font in options.fonts:
        with font.open("rb") as file:
            prints.append([font.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return {
        "format": 1,
        "midi": {name: "" if isinstance(digest, Reject) else digest for name, digest in digests.items()},
        "soundfonts": prints,
        **options.fingerprint(),
        "fluidsynth": version(),
    }


def _resume(out: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished run; None where there is work left. `out` then holds the fingerprint of this run."""
    receipt = out / RECEIPT
    if receipt.is_file():
        try:
            record: dict[str, Any] = json.loads(receipt.read_text())
        except ValueError as error:
            raise PrepError(f"{receipt} is damaged. Delete {out} and render again.") from error
        if record["fingerprint"] != fingerprint:
            raise PrepError(
                f"{out} holds another rendering (other MIDI, SoundFont, renditions or options). Choose another OUT."
            )
        return record if "songs" in record else None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PrepError(f"{out} exists and is not a rendering of `prep render`. Choose an empty OUT.")
    for split in SPLITS:
        (out / split).mkdir(parents=True, exist_ok=True)
    _write_json(receipt, {"fingerprint": fingerprint})
    return None


def _plan(
    found: dict[str, Path], digests: dict[str, str | Reject], out: Path, options: _Options, workers: int
) -> tuple[dict[str, Reject], list[Job]]:
    rejects = {name: digest for name, digest in digests.items() if isinstance(digest, Reject)}
    readable = [name for name in found if name not in rejects]
    judge = partial(_verdict, channels=options.channels)
    verdicts = zip(readable, local(judge, [found[name] for name in readable], workers), strict=True)
    rejects |= {name: verdict for name, verdict in verdicts if verdict is not None}
    usable = {name: digest for name, digest in digests.items() if name not in rejects and isinstance(digest, str)}
    splits = assign_splits(usable)
    numbers = {name: number for number, name in enumerate(found, start=1)}
    jobs = []
    for name, digest in usable.items():
        folder = out / splits[name] / f"Track{numbers[name]:05d}"
        more = options.renditions if splits[name] == "train" else 0
        drawn = draw_renditions(options.augment, more, options.seed, digest, same=len(set(options.fonts)) == 1)
        jobs.append(Job(found[name], name, digest, folder, options.fonts, options.channels, options.seed, drawn))
    return rejects, jobs


def _verdict(path: Path, channels: int) -> Reject | None:
    song = inspect(path, channels)
    return song if isinstance(song, Reject) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1))
    os.replace(partial, path)
