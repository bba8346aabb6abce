"""Songs must be right as music: a model can only learn that stems fit together if they do."""

from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from prep.compose import compose, perform
from prep.composition.form import plan_song
from prep.composition.song import Player, Song, span_at
from prep.composition.styles import GROOVES, METRES, STYLES
from prep.composition.theory import Chord, nearest, parse_chord, scale_step, voice
from prep.errors import PrepError
from prep.instruments import slakh_class

NUMBERS = range(1, 25)
# human timing is late by some milliseconds; read the chord a little after the onset
LATE_S = 0.012


@pytest.fixture(scope="module")
def songs() -> list[tuple[Song, pretty_midi.PrettyMIDI]]:
    plans = [plan_song(7, number) for number in NUMBERS]
    return [(plan, perform(plan)) for plan in plans]


def chord_share(song: Song, instrument: pretty_midi.Instrument) -> tuple[float, float]:
    """The shares of sounding time on tones of the current chord, and of its scale."""
    ends_s = np.array([song.time_s(span.end) for span in song.spans])
    total = in_chord = in_scale = 0.0
    for note in instrument.notes:
        index = min(int(np.searchsorted(ends_s, note.start + LATE_S)), len(ends_s) - 1)
        chord = song.spans[index].chord
        length = note.end - note.start
        total += length
        in_chord += length * (note.pitch % 12 in chord.tones)
        in_scale += length * (note.pitch % 12 in chord.scale)
    return in_chord / total, in_scale / total


def pitched(song: Song, midi: pretty_midi.PrettyMIDI) -> list[tuple[Player, pretty_midi.Instrument]]:
    return [(p, i) for p, i in zip(song.players, midi.instruments, strict=True) if p.role != "drums"]


def test_everything_is_in_the_key_of_the_moment(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    shares = [chord_share(song, instrument)[1] for song, midi in songs for _, instrument in pitched(song, midi)]
    assert min(shares) == 1.0


def test_accompaniment_plays_the_chords(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    shares: dict[str, list[float]] = {}
    for song, midi in songs:
        for player, instrument in pitched(song, midi):
            shares.setdefault(player.role, []).append(chord_share(song, instrument)[0])
    for role in ("keys", "guitar", "pad", "sparkle", "brass", "counter"):
        assert min(shares[role]) == 1.0, role
    assert min(shares["bass"]) > 0.7 and np.mean(shares["bass"]) > 0.95
    assert min(shares["lead"]) > 0.6 and np.mean(shares["lead"]) > 0.85


def test_a_wrong_bass_would_be_seen(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    """The oracle itself: a bass moved by a semitone is out of its chords."""
    for song, midi in songs:
        bass = next(i for p, i in pitched(song, midi) if p.role == "bass")
        moved = pretty_midi.Instrument(33)
        moved.notes = [pretty_midi.Note(n.velocity, n.pitch + 1, n.start, n.end) for n in bass.notes]
        assert chord_share(song, moved)[0] < 0.5


def test_bass_states_the_root_when_the_chord_changes(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    for song, midi in songs:
        bass = next(i for p, i in pitched(song, midi) if p.role == "bass")
        starts = [song.time_s(span.start) for span in song.spans]
        first = [(s, n) for s, span in zip(starts, song.spans, strict=True)
                 for n in bass.notes if 0 <= n.start - s < 2 * LATE_S and n.pitch % 12 == span.chord.root]  # fmt: skip
        played = [s for s in starts if any(0 <= n.start - s < 2 * LATE_S for n in bass.notes)]
        assert len(first) >= 0.95 * len(played) > 0


def test_melody_has_chord_tones_on_the_beats(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    for song, midi in songs:
        lead = next(i for p, i in pitched(song, midi) if p.role == "lead")
        beats = {bar * song.metre.steps + pulse for bar in range(400) for pulse in song.metre.pulses}
        beat_of = {step: song.time_s(step) for step in beats if song.time_s(step) <= lead.notes[-1].end}
        for step, time_s in beat_of.items():
            chord = span_at(song.spans, step).chord
            struck = [n for n in lead.notes if 0 <= n.start - time_s < LATE_S]
            assert all(n.pitch % 12 in chord.tones for n in struck)


def test_songs_differ_and_cover_slakhs_classes(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    classes = {slakh_class(128 if i.is_drum else i.program) for _, midi in songs for i in midi.instruments}
    assert classes >= {"Piano", "Organ", "Guitar", "Bass", "Strings", "Brass", "Reed", "Drums", "Chromatic Percussion"}
    assert len(classes) >= 11
    assert len({song.tonic for song, _ in songs}) >= 8
    assert len({song.bpm for song, _ in songs}) >= 15
    assert len({song.metre for song, _ in songs}) >= 4
    assert len({tuple(s.kind for s in song.sections) for song, _ in songs}) >= 4
    assert {song.mode for song, _ in songs} == {"major", "minor", "dorian", "mixolydian"}


def test_length_and_forces(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    for song, midi in songs:
        assert 30.0 <= midi.get_end_time() <= 120.0
        roles = [player.role for player in song.players]
        assert roles[:2] == ["drums", "bass"] and len(roles) >= 6 and len(set(roles)) == len(roles)
        assert all(instrument.notes for instrument in midi.instruments)
        velocities = [note.velocity for instrument in midi.instruments for note in instrument.notes]
        assert min(velocities) >= 20 and max(velocities) <= 127 and np.std(velocities) > 5
        assert len({note.pitch for i in midi.instruments for note in i.notes if not i.is_drum}) > 10


def test_most_songs_have_an_instrument_that_rests(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    resting = [any(p.role not in s.players for p in song.players for s in song.sections) for song, _ in songs]
    assert np.mean(resting) > 0.9


def test_a_key_is_never_struck_while_it_is_down(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    for _, midi in songs:
        for instrument in midi.instruments:
            ends: dict[int, float] = {}
            for note in sorted(instrument.notes, key=lambda n: n.start):
                assert note.start < note.end and note.start >= ends.get(note.pitch, 0.0)
                ends[note.pitch] = note.end


def test_bends_end_straight_and_pedals_end_up(songs: list[tuple[Song, pretty_midi.PrettyMIDI]]) -> None:
    instruments = [instrument for _, midi in songs for instrument in midi.instruments]
    bends = [instrument.pitch_bends for instrument in instruments if instrument.pitch_bends]
    pedals = [[c for c in instrument.control_changes if c.number == 64] for instrument in instruments]
    assert bends and all(sorted(b, key=lambda x: x.time)[-1].pitch == 0 for b in bends)
    assert any(pedals) and all(sorted(p, key=lambda x: x.time)[-1].value == 0 for p in pedals if p)


def test_bytes_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    three = [path.read_bytes() for path in compose(tmp_path / "three", 3, seed=5, short=True)]
    two = [path.read_bytes() for path in compose(tmp_path / "two", 2, seed=5, short=True)]
    other = [path.read_bytes() for path in compose(tmp_path / "other", 3, seed=6, short=True)]
    assert three[:2] == two and len(set(three + other)) == 6
    assert sorted(p.name for p in (tmp_path / "three").iterdir()) == ["song00001.mid", "song00002.mid", "song00003.mid"]


def test_short_songs_are_short() -> None:
    lengths_s = [perform(plan_song(3, number, short=True)).get_end_time() for number in range(1, 9)]
    assert max(lengths_s) < 30.0


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(PrepError, match="songs is 0; it must be at least 1"):
        compose(tmp_path, 0, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepError, match="file is a file; choose a folder"):
        compose(tmp_path / "file", 1, seed=0)


def test_the_tables_fit_together() -> None:
    for grooves in GROOVES.values():
        for metre, options in grooves.items():
            assert all(len(lane) == METRES[metre].steps for groove in options for lane in groove.values())
    for style in STYLES:
        assert all(any(metre in GROOVES[name] for name in style.grooves) for metre in style.metres), style.name


def test_theory() -> None:
    assert parse_chord("1", 0, "major", 3).tones == (0, 4, 7)
    assert parse_chord("2", 0, "major", 4).tones == (2, 5, 9, 0)
    assert parse_chord("5", 9, "minor", 3).tones == (4, 7, 11)
    # the harmonic minor's dominant: E major in A minor, with G sharp in its scale
    assert parse_chord("5#", 9, "minor", 3) == Chord((4, 8, 11), (9, 11, 0, 2, 4, 5, 8))
    assert parse_chord("7", 2, "mixolydian", 3).tones == (0, 4, 7)
    assert nearest(60.4, (11, 2)) == 59 and nearest(61, (0, 2)) == 60
    assert scale_step(60, (0, 2, 4, 5, 7, 9, 11), 3) == 65 and scale_step(60, (0, 2, 4, 5, 7, 9, 11), -1) == 59
    c, f = parse_chord("1", 0, "major", 3), parse_chord("4", 0, "major", 3)
    first = voice(c, 62, (), 3)
    # the common tone stays and the others move by a step
    assert sum(abs(a - b) for a, b in zip(first, voice(f, 62, first, 3), strict=True)) <= 5
