"""Reading MIDI: against pretty_midi where both can read it, and by hand where pretty_midi loses something."""

from pathlib import Path
from typing import Any

import mido
import numpy as np
import pretty_midi
import pytest

from prep.compose import compose
from prep.errors import Reject
from prep.instruments import DRUMS
from prep.midi import Part, Song, read_song
from prep.midi_write import write_part


def write(path: Path, *tracks: list[Any], ticks: int = 480) -> Path:
    file = mido.MidiFile(type=1, ticks_per_beat=ticks)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    file.save(path)
    return path


def note(pitch: int, ticks: int, channel: int = 0, wait: int = 0) -> list[mido.Message]:
    return [
        mido.Message("note_on", note=pitch, velocity=80, channel=channel, time=wait),
        mido.Message("note_off", note=pitch, channel=channel, time=ticks),
    ]


def onsets(part: Part) -> list[tuple[float, int]]:
    return sorted((round(e.time_s, 6), e.message.note) for e in part.events if e.message.type == "note_on")


def song_of(path: Path) -> Song:
    song = read_song(path)
    assert isinstance(song, Song)
    return song


def test_parts_are_pretty_midis_instruments(tmp_path: Path) -> None:
    for path in compose(tmp_path, 4, seed=11, short=True):
        song, reference = song_of(path), pretty_midi.PrettyMIDI(str(path))
        assert len(song.parts) == len(reference.instruments)
        for part, instrument in zip(song.parts, reference.instruments, strict=True):
            assert part.program == (DRUMS if instrument.is_drum else instrument.program)
            assert part.name == instrument.name and part.notes == len(instrument.notes)
            expected = sorted((round(n.start, 6), n.pitch) for n in instrument.notes)
            assert np.allclose(onsets(part), expected, atol=2e-6)
        assert song.length_s == pytest.approx(max(n.end for i in reference.instruments for n in i.notes))


def test_tempi_of_any_track_hold_for_all(tmp_path: Path) -> None:
    tempi = [
        mido.MetaMessage("set_tempo", tempo=1_000_000, time=480),
        mido.MetaMessage("set_tempo", tempo=250_000, time=960),
    ]
    song = song_of(write(tmp_path / "a.mid", note(60, 480) + note(62, 480, wait=480) + note(64, 480), tempi))
    # 0.5 s a beat for one beat, then 1 s for two, then 0.25 s
    assert onsets(song.parts[0]) == [(0.0, 60), (1.5, 62), (2.5, 64)]
    assert song.length_s == pytest.approx(2.75)


def test_a_program_change_begins_another_part(tmp_path: Path) -> None:
    track = [mido.Message("program_change", program=5), *note(60, 480), mido.Message("program_change", program=40)]
    song = song_of(write(tmp_path / "a.mid", track + note(64, 480)))
    assert [(part.program, onsets(part)) for part in song.parts] == [(5, [(0.0, 60)]), (40, [(0.5, 64)])]


def test_a_note_ends_in_the_part_that_began_it(tmp_path: Path) -> None:
    track = [
        mido.Message("note_on", note=60, velocity=80),
        mido.Message("program_change", program=40, time=240),
        mido.Message("note_on", note=67, velocity=80),
        mido.Message("note_off", note=60, time=240),
        mido.Message("note_off", note=67, time=240),
    ]
    first, second = song_of(write(tmp_path / "a.mid", track)).parts
    assert [(e.message.type, e.message.note, e.tick) for e in first.events] == [
        ("note_on", 60, 0),
        ("note_off", 60, 480),
    ]
    assert [(e.message.type, e.message.note, e.tick) for e in second.events] == [
        ("note_on", 67, 240),
        ("note_off", 67, 720),
    ]


def test_controllers_reach_every_part_of_their_channel(tmp_path: Path) -> None:
    controls = [
        mido.Message("control_change", control=64, value=127, channel=3),
        mido.Message("pitchwheel", pitch=100, channel=3),
    ]
    song = song_of(write(tmp_path / "a.mid", controls, note(60, 480, 3), note(64, 480, 3), note(40, 480, 4)))
    assert [[e.message.type for e in part.events][:2] for part in song.parts[:2]] == [
        ["control_change", "pitchwheel"]
    ] * 2
    assert [e.message.type for e in song.parts[2].events] == ["note_on", "note_off"]


def test_a_note_that_never_ends_does_with_the_song(tmp_path: Path) -> None:
    track = [mido.Message("note_on", note=50, velocity=80), *note(60, 960)]
    song = song_of(write(tmp_path / "a.mid", track))
    ends = {e.message.note: e.tick for e in song.parts[0].events if e.message.type == "note_off"}
    assert ends == {50: 960, 60: 960}


def test_drums_and_banks(tmp_path: Path) -> None:
    def bank(channel: int, msb: int, program: int, lsb: int = 0) -> list[mido.Message]:
        select = [mido.Message("control_change", control=c, value=v, channel=channel) for c, v in ((0, msb), (32, lsb))]
        return [*select, mido.Message("program_change", program=program, channel=channel), *note(60, 480, channel)]

    tracks = bank(9, 0, 8), bank(1, 8, 26), bank(2, 127, 25), bank(3, 121, 5, lsb=1), bank(9, 121, 4)
    parts = song_of(write(tmp_path / "a.mid", *tracks)).parts
    # General MIDI's channel 10; a GS variation; XG's drums; General MIDI 2's melody, on channel 10 too
    assert [(p.program, p.bank, p.preset) for p in parts] == [
        (DRUMS, 0, 8),
        (26, 8, 26),
        (DRUMS, 0, 25),
        (5, 1, 5),
        (4, 0, 4),
    ]


def test_a_part_written_reads_back(tmp_path: Path) -> None:
    (path,) = compose(tmp_path, 1, seed=4, short=True)
    song = song_of(path)
    for i, part in enumerate(song.parts):
        write_part(tmp_path / f"part{i}.mid", song, part)
        (again,) = song_of(tmp_path / f"part{i}.mid").parts
        assert (again.program, again.preset, again.name) == (part.program, part.preset, part.name)
        assert [(e.time_s, e.message.bytes()[1:]) for e in again.events] == [
            (e.time_s, e.message.bytes()[1:]) for e in part.events
        ]


def test_rejects(tmp_path: Path) -> None:
    (tmp_path / "text.mid").write_bytes(b"this is no MIDI file at all")
    assert read_song(tmp_path / "text.mid") == Reject(
        "corrupt_midi", "OSError: MThd not found. Probably not a MIDI file"
    )
    (tmp_path / "empty.mid").write_bytes(b"")
    assert read_song(tmp_path / "empty.mid") == Reject("corrupt_midi", "EOFError")
    assert read_song(write(tmp_path / "a.mid", [mido.Message("program_change", program=3)])) == Reject("no_notes")
    stopped = write(tmp_path / "b.mid", [mido.MetaMessage("set_tempo", tempo=0), *note(60, 480)])
    assert read_song(stopped) == Reject("bad_tempo", "a tempo of 0 microseconds a beat")
    long = write(tmp_path / "c.mid", note(60, 480) + note(60, 480, wait=480 * 2 * 43200))
    assert read_song(long) == Reject("too_long", "43201 s; at most 1200 s are rendered")


def test_a_clock_of_video_frames_is_no_beat(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mid", note(60, 480))
    data = bytearray(path.read_bytes())
    data[12] = 0xE7  # 25 frames a second
    path.write_bytes(data)
    verdict = read_song(path)
    assert isinstance(verdict, Reject) and verdict.reason == "no_beats"


def test_no_damage_raises(tmp_path: Path) -> None:
    (path,) = compose(tmp_path, 1, seed=2, short=True)
    whole = path.read_bytes()[:4000]
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole))])
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        verdicts.append(read_song(path))
    assert all(isinstance(verdict, Song | Reject) for verdict in verdicts)
