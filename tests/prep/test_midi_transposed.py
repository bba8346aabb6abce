"""Transposing and re-timing: by hand, and read back from the files that are written of it."""

from pathlib import Path
from typing import Any

import mido
import pytest

from prep.compose import compose
from prep.errors import Reject
from prep.instruments import DRUMS
from prep.midi import MAX_S, Part, Song, transposed
from prep.midi_write import write_part, write_song
from prep.renditions import make_rendition
from prep.stages.augment import Augmentation
from tests.prep.test_midi import note, onsets, song_of, write


def plays(part: Part) -> list[tuple[int, list[int]]]:
    """What a part does and when, whatever its channel; at one tick in any order."""
    return sorted((e.tick, [e.message.bytes()[0] & 0xF0, *e.message.bytes()[1:]]) for e in part.events)


def test_notes_move_and_drums_stay(tmp_path: Path) -> None:
    control = mido.Message("control_change", control=64, value=60)
    wheel = mido.Message("pitchwheel", pitch=60)
    song = song_of(write(tmp_path / "a.mid", [control, wheel, *note(60, 480)], note(36, 480, channel=9)))
    up, folded = transposed(song, 3, 1.25, pitch_drums=False)
    assert folded == 0 and up.length_s == pytest.approx(0.4)
    melody, drums = up.parts
    assert [(e.tick, round(e.time_s, 9), e.message.bytes()[1:]) for e in melody.events] == [
        (0, 0.0, [64, 60]),
        (0, 0.0, wheel.bytes()[1:]),
        (0, 0.0, [63, 80]),
        (480, 0.4, [63, 64]),
    ]
    assert onsets(drums) == [(0.0, 36)] and drums.program == DRUMS
    assert onsets(transposed(song, 3, 1.0, pitch_drums=True)[0].parts[1]) == [(0.0, 39)]


def test_notes_that_would_leave_the_range_move_an_octave_back(tmp_path: Path) -> None:
    song = song_of(write(tmp_path / "a.mid", note(125, 480) + note(60, 480) + note(1, 480)))
    up, folded_up = transposed(song, 4, 1.0, pitch_drums=False)
    down, folded_down = transposed(song, -4, 1.0, pitch_drums=False)
    assert [pitch for _, pitch in onsets(up.parts[0])] == [117, 64, 5] and folded_up == 1
    assert [pitch for _, pitch in onsets(down.parts[0])] == [121, 56, 9] and folded_down == 1
    ends = [e.message.note for e in up.parts[0].events if e.message.type == "note_off"]
    assert ends == [117, 64, 5]


def test_nothing_changes_nothing(tmp_path: Path) -> None:
    (path,) = compose(tmp_path, 1, seed=6, short=True)
    song = song_of(path)
    assert transposed(song, 0, 1.0, pitch_drums=True) == (song, 0)


@pytest.mark.parametrize("speed", [0.8, 1.07, 1.2])
def test_the_files_say_what_is_heard(tmp_path: Path, speed: float) -> None:
    for number, path in enumerate(compose(tmp_path, 3, seed=8, short=True)):
        song = song_of(path)
        changed, _ = transposed(song, -3, speed, pitch_drums=False)
        for part, original in zip(changed.parts, song.parts, strict=True):
            assert [e.time_s * speed for e in part.events] == pytest.approx([e.time_s for e in original.events])
        write_song(tmp_path / f"whole{number}.mid", changed)
        again = song_of(tmp_path / f"whole{number}.mid")
        assert len(again.parts) == len(changed.parts) > 2
        for i, part in enumerate(changed.parts):
            write_part(tmp_path / "part.mid", changed, part)
            (alone,) = song_of(tmp_path / "part.mid").parts
            for other in (alone, again.parts[i]):
                assert (other.name, other.program, other.bank, other.preset) == (
                    part.name, part.program, part.bank, part.preset,
                )  # fmt: skip
                assert plays(other) == plays(part)
                assert [e.time_s for e in other.events] == pytest.approx([e.time_s for e in part.events], abs=1e-3)


def test_a_written_song_keeps_banks_and_programs_apart_on_a_shared_channel(tmp_path: Path) -> None:
    def select(channel: int, msb: int, program: int, lsb: int = 0) -> list[Any]:
        bank = [mido.Message("control_change", control=c, value=v, channel=channel) for c, v in ((0, msb), (32, lsb))]
        return [*bank, mido.Message("program_change", program=program, channel=channel), *note(60, 100, channel)]

    pedal = mido.Message("control_change", control=64, value=127, channel=2)
    song = song_of(
        write(
            tmp_path / "a.mid",
            [pedal, *select(2, 8, 5), *select(2, 0, 5), *select(2, 8, 5)],
            [*select(2, 0, 40), *select(2, 127, 25), *note(64, 100, 2)],
            [*select(9, 0, 8), *select(9, 121, 4, lsb=3)],
            select(3, 121, 4, lsb=120),
        )
    )
    write_song(tmp_path / "b.mid", song)
    again = song_of(tmp_path / "b.mid")
    kinds = [(part.program, part.bank, part.preset) for part in song.parts]
    assert {(5, 0, 5), (5, 8, 5), (40, 0, 40), (DRUMS, 0, 25), (4, 3, 4), (DRUMS, 0, 8), (4, 120, 4)} <= set(kinds)
    assert [(part.program, part.bank, part.preset) for part in again.parts] == kinds
    assert [plays(part) for part in again.parts] == [plays(part) for part in song.parts]
    for part in song.parts:
        write_part(tmp_path / "part.mid", song, part)
        (alone,) = song_of(tmp_path / "part.mid").parts
        assert (alone.bank, alone.preset) == (part.bank, part.preset)


def test_a_key_is_kept_while_it_is_true(tmp_path: Path) -> None:
    head = [mido.MetaMessage("key_signature", key="Bb"), mido.MetaMessage("time_signature", numerator=3)]
    song = song_of(write(tmp_path / "a.mid", [*head, *note(60, 480)]))
    kinds = [[m.type for _, m in transposed(song, semitones, 1.0, False)[0].meta] for semitones in (0, 2)]
    assert kinds == [["key_signature", "time_signature"], ["time_signature"]]


def test_what_cannot_be_a_rendition_says_so(tmp_path: Path) -> None:
    song = song_of(write(tmp_path / "a.mid", note(60, 480) + note(60, 480, wait=480 * 2 * 1000)))
    assert isinstance(song, Song) and song.length_s > MAX_S * 0.8
    verdict = make_rendition(song, Augmentation(speed=0.8))
    assert verdict == Reject("too_long", "1251 s; at most 1200 s are rendered")
    assert not isinstance(make_rendition(song, Augmentation(speed=0.9)), Reject)
    # a fermata as a beat of 16 seconds; MIDI's three bytes end at 16.8
    slow = song_of(write(tmp_path / "b.mid", [mido.MetaMessage("set_tempo", tempo=16_000_000), *note(60, 48)]))
    verdict = make_rendition(slow, Augmentation(speed=0.9))
    assert verdict == Reject("bad_tempo", "17777778 microseconds a beat; MIDI can say 1 to 16777215")
    assert not isinstance(make_rendition(slow, Augmentation(speed=1.1)), Reject)
