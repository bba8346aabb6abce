"""Writes original General MIDI songs, so that nothing has to be downloaded to try or to test the rest.

A song is drawn whole (`composition.form`), played part by part against its chords (`composition.rhythm`, `.harmony`,
`.melody`), and performed here: swing, small deviations of time and force, pedal, swells and bends. Its bytes follow
from the seed and its number alone.
"""

import os
from pathlib import Path

import numpy as np
import pretty_midi

from prep.composition.form import plan_song
from prep.composition.harmony import play_brass, play_comping, play_pad, play_sparkle
from prep.composition.melody import play_counter, play_lead
from prep.composition.rhythm import play_bass, play_drums
from prep.composition.song import Note, Player, Section, Song
from prep.errors import PrepError

_VOLUME, _PAN, _EXPRESSION, _PEDAL = 7, 10, 11, 64
_JITTER_S, _FORCE_JITTER = 0.004, 0.035
_GAP_S = 0.004
# guitars, saxophones, brass and synth leads slide into some of their long notes, up from a semitone below
_SLIDING_FAMILIES = (3, 7, 8, 10)
_SLIDE_S, _SLIDE_CHANCE, _SEMITONE = 0.09, 0.3, 4096
_PITCH_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")


def compose(out: Path, songs: int, seed: int, *, short: bool = False) -> list[Path]:
    """Writes song00001.mid and so on into `out`, and returns their paths; `short` makes songs of some ten seconds.
    Raises PrepError where there is nothing to write or nowhere to write it."""
    if songs < 1:
        raise PrepError(f"songs is {songs}; it must be at least 1.")
    if out.exists() and not out.is_dir():
        raise PrepError(f"{out} is a file; choose a folder for the songs.")
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, songs + 1):
        path = out / f"song{number:05d}.mid"
        partial = path.with_suffix(".partial")
        perform(plan_song(seed, number, short)).write(str(partial))
        os.replace(partial, path)
        paths.append(path)
    return paths


def perform(song: Song) -> pretty_midi.PrettyMIDI:
    """The song as MIDI, an instrument and track for each player."""
    midi = pretty_midi.PrettyMIDI(resolution=480, initial_tempo=song.bpm)
    metre = song.metre
    midi.time_signature_changes.append(pretty_midi.TimeSignature(metre.numerator, metre.denominator, 0.0))
    key = _PITCH_NAMES[_signature_tonic(song)]
    midi.key_signature_changes.append(pretty_midi.KeySignature(pretty_midi.key_name_to_key_number(f"{key} major"), 0.0))
    for player in song.players:
        sections = [section for section in song.sections if player.role in section.players]
        notes = [note for section in sections for note in play(song, player, section)]
        instrument = pretty_midi.Instrument(player.program, player.role == "drums", _name(player))
        instrument.notes = _humanise(song, player, notes)
        instrument.control_changes = _controls(song, player, sections)
        instrument.pitch_bends = _slides(song, player, instrument.notes)
        midi.instruments.append(instrument)
    return midi


def play(song: Song, player: Player, section: Section) -> list[Note]:
    """What one player has in one section, as written: before swing and the rest of the performance."""
    if player.role == "drums":
        return play_drums(song, section)
    player_of = {
        "bass": play_bass,
        "keys": play_comping,
        "guitar": play_comping,
        "pad": play_pad,
        "sparkle": play_sparkle,
        "brass": play_brass,
        "lead": play_lead,
        "counter": play_counter,
    }[player.role]
    return player_of(song, player, section)


def _name(player: Player) -> str:
    if player.role == "drums":
        return "Drums"
    return f"{player.role.capitalize()}: {pretty_midi.program_to_instrument_name(player.program)}"


def _signature_tonic(song: Song) -> int:
    """The major key with the mode's signature."""
    return (song.tonic + {"major": 0, "minor": 3, "dorian": 10, "mixolydian": 5}[song.mode]) % 12


def _humanise(song: Song, player: Player, notes: list[Note]) -> list[pretty_midi.Note]:
    rng = song.rng("performance", player.role)
    played: list[pretty_midi.Note] = []
    last: dict[int, pretty_midi.Note] = {}
    for note in sorted(notes, key=lambda n: (n.start, n.pitch)):
        late_s = abs(float(rng.normal(0.0, _JITTER_S)))
        start = song.time_s(note.start) + late_s
        end = max(song.time_s(note.end), start + 0.04)
        force = np.clip(note.force + rng.normal(0.0, _FORCE_JITTER), 0.1, 1.0)
        before = last.get(note.pitch)
        if before is not None and before.end > start - _GAP_S:
            # one key cannot be struck while it is down
            before.end = max(start - _GAP_S, before.start + _GAP_S)
        last[note.pitch] = pretty_midi.Note(round(20 + 104 * float(force)), note.pitch, start, end)
        played.append(last[note.pitch])
    return played


def _controls(song: Song, player: Player, sections: list[Section]) -> list[pretty_midi.ControlChange]:
    change = pretty_midi.ControlChange
    controls = [change(_VOLUME, player.volume, 0.0), change(_PAN, player.pan, 0.0)]
    for section in sections:
        if player.role == "keys" and player.manner in ("sustain", "arpeggio") and player.program < 8:
            controls += _pedal(song, section)
        if player.role in ("pad", "counter"):
            controls += _swells(song, section)
    return controls


def _pedal(song: Song, section: Section) -> list[pretty_midi.ControlChange]:
    """Down just after each change of chord and up just before the next, so that no chord rings into another."""
    change = pretty_midi.ControlChange
    controls = []
    for span in section.spans:
        down, up = song.time_s(span.start) + 0.05, song.time_s(span.end) - 0.03
        if up > down:
            controls += [change(_PEDAL, 127, down), change(_PEDAL, 0, up)]
    return controls


def _swells(song: Song, section: Section) -> list[pretty_midi.ControlChange]:
    """Expression up to the middle of each chord and back, deeper where the section is quiet."""
    low = round(60 + 40 * section.intensity)
    controls = []
    for span in section.spans:
        for i in range(9):
            value = low + (120 - low) * np.sin(np.pi * i / 8)
            time_s = song.time_s(span.start + span.steps * i / 9)
            controls.append(pretty_midi.ControlChange(_EXPRESSION, round(float(value)), time_s))
    return controls


def _slides(song: Song, player: Player, notes: list[pretty_midi.Note]) -> list[pretty_midi.PitchBend]:
    if player.role != "lead" or player.program // 8 not in _SLIDING_FAMILIES:
        return []
    rng = song.rng("slides")
    bends = []
    for note in notes:
        if note.end - note.start > 4 * _SLIDE_S and rng.random() < _SLIDE_CHANCE:
            steps = np.linspace(-_SEMITONE, 0, 7)
            bends += [pretty_midi.PitchBend(round(b), note.start + _SLIDE_S * i / 6) for i, b in enumerate(steps)]
    return bends
