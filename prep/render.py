"""A folder of General MIDI files to a corpus in Slakh2100's layout: OUT/{train,validation,test}/TrackNNNNN.

Tracks are numbered over the sorted file names, and a rejected file leaves its number out. A song's split depends on its
bytes alone: a digest below 0.1 is test, below 0.2 validation. Where that leaves a split of three songs or more empty,
the nearest digests are moved there; fewer songs than three are all for training. Copies of one file share a digest and
so never cross splits.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pretty_midi
from tqdm import tqdm

from prep.engines import local
from prep.errors import PrepError, Reject
from prep.render_song import Job, Rendered, inspect, read_rendered, render_song
from prep.stages.render import version

SPLITS = ("train", "validation", "test")
RECEIPT = "render.json"
_TEST, _VALIDATION = 0.1, 0.2


@dataclass(frozen=True)
class SilentStem:
    """A stem that the SoundFont gave no sound: a program without a preset, most often."""

    track: str
    stem: str
    program: int


@dataclass(frozen=True)
class RenderSummary:
    """`songs` is the number of MIDI files found, each of them in `rendered` (by split, where there is one) or in
    `rejected`. `audio_s` is the length of all mixes, `seconds` the time that this run took; `fallbacks` counts stems
    whose bank the SoundFont lacks, as far as this run rendered them."""

    songs: int
    rendered: dict[str, int]
    stems: int
    audio_s: float
    seconds: float
    rejected: tuple[tuple[Path, Reject], ...]
    silent: tuple[SilentStem, ...]
    fallbacks: int
    already_done: bool = False

    def lines(self) -> list[str]:
        """For a person, a line each."""
        splits = ", ".join(f"{count} {split}" for split, count in self.rendered.items()) or "none"
        total = sum(self.rendered.values())
        lines = [f"{total} of {self.songs} songs: {splits}; {self.stems} stems, {self.audio_s / 3600:.2f} h of mixes"]
        if self.already_done:
            lines.append("all of it was there already; nothing was rendered")
        else:
            speed = self.audio_s / max(self.seconds, 1e-9)
            lines.append(f"rendered in {self.seconds:.1f} s, {speed:.0f} times real time")
        if self.fallbacks:
            lines.append(f"{self.fallbacks} stems ask for a bank that the SoundFont lacks: played by the plain preset")
        lines += [f"silent: {s.track}/{s.stem}, program {s.program} has no sound" for s in self.silent]
        lines += [f"left out: {path}: {reject.reason} {reject.detail}".rstrip() for path, reject in self.rejected]
        return lines


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
    progress: bool = True,
) -> RenderSummary:
    """Renders every .mid and .midi file below `midi_dir`, mono as Slakh unless `channels` is 2.

    With several SoundFonts each stem draws its own, by a digest of (seed, song, stem). The bytes written do not depend
    on `workers`. A run over its own finished output does nothing; over its own unfinished output it goes on. Raises
    PrepError for a folder without MIDI, an output that holds something else, a missing SoundFont or FluidSynth."""
    began = time.monotonic()
    fonts = _checked_fonts(soundfonts)
    if channels not in (1, 2):
        raise PrepError(f"channels is {channels}; it must be 1 (mono, as Slakh) or 2 (stereo).")
    found = _midi_files(midi_dir)
    digests = {name: hashlib.md5(path.read_bytes()).hexdigest() for name, path in found.items()}
    fingerprint = _fingerprint(digests, fonts, channels, seed)
    finished = _resume(out, fingerprint)
    if finished is not None:
        return _load_summary(finished, midi_dir, time.monotonic() - began)
    count = min(workers or os.cpu_count() or 1, len(found))
    rejects, jobs = _plan(found, digests, out, fonts, channels, seed, count)
    bar = tqdm(local(_render_or_read, jobs, count), "render", len(jobs), unit="song", disable=not progress)
    results = dict(zip(jobs, bar, strict=True))
    rows = {name: _row_rejected(reject) for name, reject in rejects.items()}
    rows |= {job.name: _row(job, result) for job, result in results.items()}
    record = {"fingerprint": fingerprint, "songs": {name: rows[name] for name in found}}
    _write_json(out / RECEIPT, record)
    return _summary(record, midi_dir, time.monotonic() - began, already_done=False)


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
    files = [path for path in midi_dir.rglob("*") if path.suffix.lower() in (".mid", ".midi") and path.is_file()]
    if not files:
        raise PrepError(f"{midi_dir} holds no .mid file. Pass a folder of .mid files, such as `prep compose` writes.")
    return {path.relative_to(midi_dir).as_posix(): path for path in sorted(files)}


def _fingerprint(digests: dict[str, str], fonts: tuple[Path, ...], channels: int, seed: int) -> dict[str, Any]:
    prints = []
    for font in fonts:
        with font.open("rb") as file:
            prints.append([font.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return {
        "format": 1,
        "midi": digests,
        "soundfonts": prints,
        "channels": channels,
        "seed": seed,
        "fluidsynth": version(),
    }


def _resume(out: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished run; None where there is work left. `out` then holds the fingerprint of this run."""
    receipt = out / RECEIPT
    if receipt.is_file():
        record: dict[str, Any] = json.loads(receipt.read_text())
        if record["fingerprint"] != fingerprint:
            raise PrepError(f"{out} holds another rendering (other MIDI, SoundFont or options). Choose another OUT.")
        return record if "songs" in record else None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PrepError(f"{out} exists and is not a rendering of `prep render`. Choose an empty OUT.")
    for split in SPLITS:
        (out / split).mkdir(parents=True, exist_ok=True)
    _write_json(receipt, {"fingerprint": fingerprint})
    return None


def _plan(
    found: dict[str, Path],
    digests: dict[str, str],
    out: Path,
    fonts: tuple[Path, ...],
    channels: int,
    seed: int,
    workers: int,
) -> tuple[dict[str, Reject], list[Job]]:
    verdicts = zip(found, local(_verdict, list(found.values()), workers), strict=True)
    rejects = {name: verdict for name, verdict in verdicts if verdict is not None}
    splits = assign_splits({name: digest for name, digest in digests.items() if name not in rejects})
    jobs = [
        Job(path, name, out / splits[name] / f"Track{number:05d}", fonts, channels, seed)
        for number, (name, path) in enumerate(found.items(), start=1)
        if name not in rejects
    ]
    return rejects, jobs


def _verdict(path: Path) -> Reject | None:
    song = inspect(path)
    return song if isinstance(song, Reject) else None


def _render_or_read(job: Job) -> Rendered | Reject:
    return read_rendered(job.folder) if job.folder.is_dir() else render_song(job)


def _row(job: Job, result: Rendered | Reject) -> dict[str, Any]:
    if isinstance(result, Reject):
        return _row_rejected(result)
    return {"split": job.folder.parent.name, "track": job.folder.name, **asdict(result)}


def _row_rejected(reject: Reject) -> dict[str, Any]:
    return {"rejected": asdict(reject)}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1))
    os.replace(partial, path)


def _load_summary(record: dict[str, Any], midi_dir: Path, seconds: float) -> RenderSummary:
    return _summary(record, midi_dir, seconds, already_done=True)


def _summary(record: dict[str, Any], midi_dir: Path, seconds: float, already_done: bool) -> RenderSummary:
    rows = record["songs"]
    done = [row for row in rows.values() if "rejected" not in row]
    return RenderSummary(
        songs=len(rows),
        rendered={split: count for split in SPLITS if (count := sum(row["split"] == split for row in done))},
        stems=sum(row["stems"] for row in done),
        audio_s=sum(row["audio_s"] for row in done),
        seconds=seconds,
        rejected=tuple((midi_dir / name, Reject(**r["rejected"])) for name, r in rows.items() if "rejected" in r),
        silent=tuple(SilentStem(row["track"], stem, program) for row in done for stem, program in row["silent"]),
        fallbacks=sum(row["fallbacks"] for row in done),
        already_done=already_done,
    )
