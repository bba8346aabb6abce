"""MIDI that nobody should have written: each file is rendered or listed with its reason, and the run goes on."""

import os
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from prep.errors import Reject
from prep.midi import Song, read_song
from prep.render import default_soundfont, render_corpus
from prep.render_song import inspect
from prep.render_summary import RenderSummary
from prep.sources.slakh import read_slakh
from prep.stages.render import BLOCK, render
from tests.prep.built import work_here
from tests.prep.test_render_stage import control, tone, write

pytestmark = pytest.mark.usefixtures("fluidsynth")

FLUTE, ORGAN, OCARINA = 73, 19, 79
HOUR_MS = 3_600_000


def two(*before: Any) -> list[list[Any]]:
    return [tone(FLUTE, 0, ms=100), [*before, *tone(ORGAN, 1, ms=100)]]


def file_of(*chunks: bytes) -> bytes:
    """A MIDI file of tracks given as bytes, 500 ticks a beat."""
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 1, 0, len(chunks), 1, 0xF4])
    return head + b"".join(b"MTrk" + len(chunk).to_bytes(4, "big") + chunk for chunk in chunks)


END = bytes([0, 0xFF, 0x2F, 0])


def run(folder: Path, out: Path, **options: Any) -> RenderSummary:
    return render_corpus(folder, out, workers=1, progress=False, **options)


def test_every_bad_file_is_listed_and_the_good_one_rendered(tmp_path: Path) -> None:
    folder = tmp_path / "midi"
    write(folder / "good.mid", *two())
    write(folder / "12 hours.mid", *two(), [*tone(FLUTE, 2), mido.Message("note_on", note=60, time=12 * HOUR_MS)])
    write(folder / "one note.mid", tone(FLUTE, 0))
    write(folder / "tempo 0.mid", *two(mido.MetaMessage("set_tempo", tempo=0)))
    raw = {
        "empty.mid": b"",
        "header only.mid": file_of(),
        "a title.mid": file_of(END),
        "no status.mid": file_of(bytes([0, 60, 90, 10, 61, 90]) + END),
        "cut in a note.mid": file_of(bytes([0, 0x90, 60])),
        "garbage.mid": file_of(bytes([0, 0x90, 60, 90, 1, 0xF4, 0xF9, 3, 3]) + END),
        # a delta time whose continuation bits never end: past any clock's whole numbers
        "endless delta.mid": file_of(bytes([0, 0x90, 60, 90]) + b"\xff" * 30 + bytes([1, 0x80, 60, 0]) + END),
    }
    for name, content in raw.items():
        (folder / name).write_bytes(content)
    (folder / "gone.mid").symlink_to(tmp_path / "unplugged.mid")
    summary = run(folder, tmp_path / "out")
    assert {path.name: reject.reason for path, reject in summary.rejected} == {
        "12 hours.mid": "too_long",
        "one note.mid": "one_instrument",
        "tempo 0.mid": "bad_tempo",
        "empty.mid": "corrupt_midi",
        "header only.mid": "no_notes",
        "a title.mid": "no_notes",
        "no status.mid": "corrupt_midi",
        "cut in a note.mid": "corrupt_midi",
        "garbage.mid": "corrupt_midi",
        "endless delta.mid": "corrupt_midi",
        "gone.mid": "unreadable",
    }
    assert summary.songs == 12 and summary.rendered == {"train": 1}
    lines = "\n".join(summary.lines())
    assert "12 hours.mid: too_long 43201 s; at most 1200 s are rendered" in lines
    assert "no status.mid: corrupt_midi OSError: running status without last_status" in lines
    assert "gone.mid: unreadable No such file or directory" in lines
    again = run(folder, tmp_path / "out")
    assert again.already_done and again.rejected == summary.rejected


def test_names_may_hold_any_byte(tmp_path: Path) -> None:
    folder = tmp_path / "midi"
    for name in (b"my song.mid", b"caf\xe9.mid", b"bad \xff.mid"):
        write(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), *two())
    (folder / os.fsdecode(b"bad \xff.mid")).write_bytes(b"no MIDI")
    font = tmp_path / os.fsdecode(b"f\xfcnt.sf2")
    font.symlink_to(default_soundfont())
    summary = run(folder, tmp_path / "out", soundfonts=[font])
    assert summary.rendered == {"train": 2}
    "\n".join(summary.lines()).encode()
    assert any(r"bad \udcff.mid: corrupt_midi" in line for line in summary.lines())
    multitracks, rejected = read_slakh(tmp_path / "out")
    assert [len(found.stems) for found in multitracks] == [2, 2] and rejected == []
    assert run(folder, tmp_path / "out", soundfonts=[font]).already_done


def test_two_hundred_programs(tmp_path: Path) -> None:
    """More than a pass of FluidSynth holds, by program changes in two tracks."""
    tracks: list[list[Any]] = [[], []]
    for i in range(200):
        tracks[i >= 128] += tone(i % 128, int(i >= 128), ms=20)
    write(tmp_path / "midi" / "a.mid", *tracks)
    summary = run(tmp_path / "midi", tmp_path / "out")
    assert summary.rendered == {"train": 1} and summary.stems + len(summary.silent) == 200
    assert summary.stems > 190
    (multitrack,), rejected = read_slakh(tmp_path / "out")
    assert len(multitrack.stems) == summary.stems and rejected == []


def test_a_note_that_never_ends(tmp_path: Path) -> None:
    hanging = [mido.Message("program_change", program=ORGAN), mido.Message("note_on", note=50, velocity=90)]
    write(tmp_path / "midi" / "a.mid", hanging, tone(FLUTE, 1, ms=500))
    summary = run(tmp_path / "midi", tmp_path / "out")
    # it ends with the song's last message, and the tail follows
    assert summary.rendered == {"train": 1} and summary.stems == 2 and 0.5 < summary.audio_s < 6


def test_absurd_velocities_are_the_loudest(tmp_path: Path) -> None:
    """A file can only say more than 127, and no less than 0, which ends a note."""

    def notes(velocity: int) -> bytes:
        return bytes([0, 0x90, 69, velocity, 0x83, 0x74, 0x80, 69, 0]) + END

    (tmp_path / "a.mid").write_bytes(file_of(notes(127), notes(255), notes(0)))
    song = read_song(tmp_path / "a.mid")
    assert isinstance(song, Song)
    heard = [[e.message.velocity for e in part.events if e.message.type == "note_on"] for part in song.parts]
    assert heard == [[127], [127]]


def test_controllers_hours_after_the_last_note_cost_nothing(tmp_path: Path) -> None:
    late = [control(64, 0).copy(channel=0, time=12 * HOUR_MS)]
    path = write(tmp_path / "midi" / "a.mid", tone(FLUTE, 0, ms=300), late, tone(ORGAN, 1, ms=300))
    song = read_song(path)
    assert isinstance(song, Song) and max(e.time_s for p in song.parts for e in p.events) < 1
    assert run(tmp_path / "midi", tmp_path / "out").audio_s < 6


def test_no_song_takes_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [tone(i, i, ms=1_000_000) for i in range(9)]
    crowded = write(tmp_path / "midi" / "a.mid", *(track for _ in range(13) for track in long))
    verdict = inspect(crowded, channels=1)
    assert verdict == Reject("too_large", "117 instruments of 1000 s are 19 GiB of audio; at most 16 GiB are rendered")
    assert isinstance(inspect(write(tmp_path / "b.mid", *long), channels=1), Song)
    write(tmp_path / "midi" / "b.mid", *two())
    summary = run(tmp_path / "midi", tmp_path / "out")
    assert summary.rendered == {"train": 1} and summary.rejected[0][1].reason == "too_large"

    def full(*_: object) -> None:
        raise MemoryError

    work_here(monkeypatch)
    monkeypatch.setattr("prep.render_song.render", full)
    summary = run(tmp_path / "midi", tmp_path / "other")
    assert [reject.reason for _, reject in summary.rejected] == ["too_large", "too_large"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as Linux tells it")
def test_a_stem_costs_what_it_sounds(tmp_path: Path) -> None:
    """Silence stays untouched zeros, which the system backs with no memory: here 40 short notes, one after another."""

    def late(i: int) -> list[Any]:
        select, first, off = tone(OCARINA, i % 9, ms=100)
        return [select, first.copy(time=2000 * i), off]

    song = read_song(write(tmp_path / "a.mid", *(late(i) for i in range(40))))
    assert isinstance(song, Song)
    before = resident_bytes()
    stems = render(song.parts, [default_soundfont()] * 40, 1).stems
    assert stems.nbytes > 5e8 and resident_bytes() - before < 1.5e8
    for i, stem in enumerate(stems[:, 0]):
        start = 2 * i * 44100
        assert (
            stem[start : start + 44100].any()
            and not stem[: max(0, start - BLOCK)].any()
            and not stem[start + 3 * 44100 :].any()
        )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_stems_are_whole_whatever_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "midi" / "a.mid", *two())
    run(tmp_path / "midi", tmp_path / "whole")
    work_here(monkeypatch)
    monkeypatch.setattr("prep.render_song._WRITTEN_AT_ONCE", 1000)
    run(tmp_path / "midi", tmp_path / "pieces")
    for path in sorted((tmp_path / "whole").rglob("*.flac")):
        other = tmp_path / "pieces" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()
        assert np.array_equal(soundfile.read(path)[0], soundfile.read(other)[0])
