"""What a run of `prep render` did: rows for its receipt, and from them the summary for a person."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prep.errors import Reject
from prep.multitrack import SPLITS
from prep.names import printable
from prep.render_song import Job, Rendered, rendition_folder


@dataclass(frozen=True)
class SilentStem:
    """A stem that the SoundFont gave no sound: a program without a preset, most often."""

    track: str
    stem: str
    program: int


@dataclass(frozen=True)
class RenderSummary:
    """`songs` is the number of MIDI files found, each of them in `rendered` (by split, where there is one) or in
    `rejected`. `renditions` were made of them beside, or are in `left_out` by their track's name. `stems` and `audio_s`
    (the length of all mixes) count both. `seconds` is the time that this run took; `fallbacks` counts stems whose bank
    the SoundFont lacks and `folded` notes put an octave back, as far as this run rendered them."""

    songs: int
    rendered: dict[str, int]
    renditions: int
    stems: int
    audio_s: float
    seconds: float
    rejected: tuple[tuple[Path, Reject], ...]
    left_out: tuple[tuple[str, Reject], ...]
    silent: tuple[SilentStem, ...]
    fallbacks: int
    folded: int
    already_done: bool = False

    def lines(self) -> list[str]:
        """For a person, a line each."""
        splits = ", ".join(f"{count} {split}" for split, count in self.rendered.items()) or "none"
        total = sum(self.rendered.values())
        more = f" and {self.renditions} renditions" if self.renditions else ""
        amount = f"{self.stems} stems, {self.audio_s / 3600:.2f} h of mixes"
        lines = [f"{total} of {self.songs} songs: {splits}{more}; {amount}"]
        if self.already_done:
            lines.append("all of it was there already; nothing was rendered")
        else:
            speed = self.audio_s / max(self.seconds, 1e-9)
            lines.append(f"rendered in {self.seconds:.1f} s, {speed:.0f} times real time")
        if self.fallbacks:
            lines.append(f"{self.fallbacks} stems ask for a bank that the SoundFont lacks: played by the plain preset")
        if self.folded:
            lines.append(f"{self.folded} notes of renditions would have left MIDI's range: put an octave back")
        lines += [f"silent: {s.track}/{s.stem}, program {s.program} has no sound" for s in self.silent]
        left_out = [*self.left_out, *self.rejected]
        lines += [f"left out: {what}: {reject.reason} {reject.detail}".rstrip() for what, reject in left_out]
        return [printable(line) for line in lines]


def row_of(job: Job, results: Sequence[Rendered | Reject]) -> dict[str, Any]:
    """The receipt's row of a song, its renditions in it, from what `render_song` returned."""
    song, *renditions = results
    if isinstance(song, Reject):
        return row_rejected(song)
    rows = [_row(rendition_folder(job.folder, k), result) for k, result in enumerate(renditions, start=1)]
    return {"split": job.folder.parent.name, **_row(job.folder, song), **({"renditions": rows} if rows else {})}


def _row(folder: Path, result: Rendered | Reject) -> dict[str, Any]:
    row = row_rejected(result) if isinstance(result, Reject) else asdict(result)
    return {"track": folder.name, **row}


def row_rejected(reject: Reject) -> dict[str, Any]:
    return {"rejected": asdict(reject)}


def summarise(record: dict[str, Any], midi_dir: Path, seconds: float, already_done: bool) -> RenderSummary:
    """The summary of a finished run's receipt; `midi_dir` is where its songs' names begin."""
    rows = record["songs"]
    songs = [row for row in rows.values() if "rejected" not in row]
    tried = [rendition for row in songs for rendition in row.get("renditions", [])]
    renditions = [row for row in tried if "rejected" not in row]
    done = songs + renditions
    return RenderSummary(
        songs=len(rows),
        rendered={split: count for split in SPLITS if (count := sum(row["split"] == split for row in songs))},
        renditions=len(renditions),
        stems=sum(row["stems"] for row in done),
        audio_s=sum(row["audio_s"] for row in done),
        seconds=seconds,
        rejected=tuple((midi_dir / name, Reject(**r["rejected"])) for name, r in rows.items() if "rejected" in r),
        left_out=tuple((row["track"], Reject(**row["rejected"])) for row in tried if "rejected" in row),
        silent=tuple(SilentStem(row["track"], stem, program) for row in done for stem, program in row["silent"]),
        fallbacks=sum(row["fallbacks"] for row in done),
        folded=sum(row.get("folded", 0) for row in renditions),
        already_done=already_done,
    )
