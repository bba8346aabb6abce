"""General MIDI files as parts: what each instrument of a song plays, with every controller that its channel hears.

`pretty_midi` keeps controllers by track and drops banks, pressure and notes without an end, so files are read with mido
here. As pretty_midi does, a track whose channel plays several programs becomes several parts.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np

from prep.errors import Reject
from prep.instruments import DRUMS

DRUM_CHANNEL = 9
# a pass holds every stem in memory, and no song lasts longer: what does is a broken tempo or a stray note
MAX_S = 1200.0
# later than this after the last note's end no pedal is lifted and no volume moved that could still be heard
_AFTERMATH_S = 30.0
_DEFAULT_TEMPO = 500_000  # microseconds a beat
# the format's four bytes of seven bits; mido reads on for as long as a broken file says
_MAX_DELTA = 0x0FFFFFFF
_CONTROLS = ("control_change", "pitchwheel", "aftertouch")
BANK_MSB, BANK_LSB = 0, 32
# General MIDI 2 selects rhythm and melody by bank 120 and 121; XG selects its drum kits by bank 127
RHYTHM_BANKS, MELODY_BANK = (120, 127), 121


class Event(NamedTuple):
    """One channel message (mido's, on the part's own channel) and when it sounds."""

    tick: int
    time_s: float
    message: Any


@dataclass(frozen=True)
class Part:
    """One instrument. `program` is 0 to 127, or 128 for drums, whose kit is then `preset`; `bank` is 0 for plain GM."""

    name: str
    channel: int
    program: int
    bank: int
    preset: int
    notes: int
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Song:
    """A MIDI file that can be rendered; `length_s` ends with its last note, before any release."""

    parts: tuple[Part, ...]
    length_s: float
    ticks_per_beat: int
    meta: tuple[tuple[int, Any], ...]  # (tick, message): tempi, metres and keys


class _Key(NamedTuple):
    track: int
    channel: int
    drums: bool
    bank: int
    preset: int


def read_song(path: Path, max_s: float = MAX_S) -> Song | Reject:
    """Parts in order of track and channel; a file that cannot be rendered is a `Reject`, whatever its bytes."""
    try:
        file = mido.MidiFile(path, clip=True)
    except Exception as error:  # mido raises a dozen types on a bad file, and none of them is ours to mend
        return Reject("corrupt_midi", f"{type(error).__name__}: {error}".rstrip(": "))
    if file.ticks_per_beat <= 0 or file.ticks_per_beat >= 0x8000:
        return Reject("no_beats", "its division counts video frames (SMPTE), not beats")
    if any(message.time > _MAX_DELTA for track in file.tracks for message in track):
        return Reject("corrupt_midi", "a delta time of more than four bytes")
    messages = sorted(_messages(file), key=lambda item: item[0])
    meta = tuple((tick, m) for tick, _, m in messages if m.type in ("set_tempo", "time_signature", "key_signature"))
    if any(m.type == "set_tempo" and m.tempo == 0 for _, m in meta):
        return Reject("bad_tempo", "a tempo of 0 microseconds a beat")
    clock = _Clock(file.ticks_per_beat, meta)
    channel_messages = [item for item in messages if not item[2].is_meta and hasattr(item[2], "channel")]
    parts = tuple(_Reading(clock, [track.name for track in file.tracks]).parts(channel_messages))
    if not parts:
        return Reject("no_notes")
    last = max(event.time_s for part in parts for event in part.events if event.message.type == "note_off")
    if last > max_s:
        return Reject("too_long", f"{last:.0f} s; at most {max_s:.0f} s are rendered")
    return Song(tuple(_until(last + _AFTERMATH_S, part) for part in parts), last, file.ticks_per_beat, meta)


def _until(end_s: float, part: Part) -> Part:
    return replace(part, events=tuple(event for event in part.events if event.time_s <= end_s))


def transposed(song: Song, semitones: int, speed: float, pitch_drums: bool) -> tuple[Song, int]:
    """The song at `speed` times its tempo and its notes moved by `semitones`, drums' only with `pitch_drums`; and how
    many notes were put an octave back because they would have left MIDI's 0 to 127.

    Events sound exactly where the factor puts them. The tempi, for files, are whole microseconds a beat: at 120 beats a
    minute such a file is less than 1 ms off after 10 minutes. A key signature would not be true any more and goes.
    Raises ValueError where a tempo leaves MIDI's three bytes."""
    moved = [_moved(part, 0 if part.program == DRUMS and not pitch_drums else semitones, speed) for part in song.parts]
    meta = [(tick, m) for tick, m in song.meta if m.type != "key_signature" or semitones == 0]
    if speed != 1.0:
        if not any(tick == 0 and m.type == "set_tempo" for tick, m in meta):
            meta = [(0, mido.MetaMessage("set_tempo", tempo=_DEFAULT_TEMPO)), *meta]
        meta = [(t, m.copy(tempo=round(m.tempo / speed)) if m.type == "set_tempo" else m) for t, m in meta]
    parts = tuple(part for part, _ in moved)
    again = replace(song, parts=parts, length_s=song.length_s / speed, meta=tuple(meta))
    return again, sum(folded for _, folded in moved)


def _moved(part: Part, semitones: int, speed: float) -> tuple[Part, int]:
    events, folded = [], 0
    for tick, time_s, message in part.events:
        if semitones and message.type in ("note_on", "note_off"):
            pitch = message.note + semitones
            inside = pitch - 12 if pitch > 127 else pitch + 12 if pitch < 0 else pitch
            folded += inside != pitch and message.type == "note_on"
            message = message.copy(note=inside)
        events.append(Event(tick, time_s / speed, message))
    return replace(part, events=tuple(events)), folded


def _messages(file: mido.MidiFile) -> Iterator[tuple[int, int, Any]]:
    for number, track in enumerate(file.tracks):
        tick = 0
        for message in track:
            tick += message.time
            yield tick, number, message


class _Clock:
    """Ticks to seconds, through the tempi of all tracks."""

    def __init__(self, ticks_per_beat: int, meta: tuple[tuple[int, Any], ...]) -> None:
        changes = [(0, _DEFAULT_TEMPO)] + [(tick, m.tempo) for tick, m in meta if m.type == "set_tempo"]
        self.ticks = np.array([tick for tick, _ in changes])
        self.tick_s = np.array([tempo for _, tempo in changes]) / 1e6 / ticks_per_beat
        self.starts_s = np.concatenate([[0.0], np.cumsum(np.diff(self.ticks) * self.tick_s[:-1])])

    def __call__(self, tick: int) -> float:
        i = int(np.searchsorted(self.ticks, tick, side="right")) - 1
        return float(self.starts_s[i] + (tick - self.ticks[i]) * self.tick_s[i])


class _Reading:
    """One walk through a song's messages in the order of time."""

    def __init__(self, clock: _Clock, track_names: list[str]) -> None:
        self.clock, self.track_names = clock, track_names
        self.program, self.msb, self.lsb = [0] * 16, [0] * 16, [0] * 16
        self.controls: dict[int, list[tuple[int, Event]]] = defaultdict(list)
        self.notes: dict[_Key, list[tuple[int, Event]]] = defaultdict(list)
        self.sounding: dict[tuple[int, int, int], list[_Key]] = defaultdict(list)

    def parts(self, messages: list[tuple[int, int, Any]]) -> Iterator[Part]:
        for serial, (tick, track, message) in enumerate(messages):
            self._take(serial, tick, track, message)
        self._close(len(messages), messages[-1][0] if messages else 0)
        for key in sorted(self.notes):
            timed = sorted(self.notes[key] + self.controls[key.channel], key=lambda item: item[0])
            events = tuple(event for _, event in timed)
            count = sum(event.message.type == "note_on" for event in events)
            program = DRUMS if key.drums else key.preset
            name = self.track_names[key.track].strip("\0 ")
            yield Part(name, key.channel, program, key.bank, key.preset, count, events)

    def _take(self, serial: int, tick: int, track: int, message: Any) -> None:
        channel = message.channel
        event = Event(tick, self.clock(tick), message)
        if message.type == "program_change":
            self.program[channel] = message.program
        elif message.type == "control_change" and message.control == BANK_MSB:
            self.msb[channel] = message.value
        elif message.type == "control_change" and message.control == BANK_LSB:
            self.lsb[channel] = message.value
        elif message.type in _CONTROLS:
            self.controls[channel].append((serial, event))
        elif message.type == "note_on" and message.velocity > 0:
            key = self._key(track, channel)
            self.notes[key].append((serial, event))
            self.sounding[track, channel, message.note].append(key)
        elif message.type in ("note_on", "note_off"):
            self._end(serial, event, track)

    def _key(self, track: int, channel: int) -> _Key:
        msb, lsb = self.msb[channel], self.lsb[channel]
        drums = msb in RHYTHM_BANKS or (channel == DRUM_CHANNEL and msb != MELODY_BANK)
        bank = lsb if msb == MELODY_BANK else msb
        return _Key(track, channel, drums, 0 if drums else bank, self.program[channel])

    def _end(self, serial: int, event: Event, track: int) -> None:
        """A note off ends that pitch in every part of its track and channel, whichever program is current by now."""
        message = event.message
        off = mido.Message("note_off", channel=message.channel, note=message.note)
        for key in dict.fromkeys(self.sounding.pop((track, message.channel, message.note), [])):
            self.notes[key].append((serial, event._replace(message=off)))

    def _close(self, serial: int, tick: int) -> None:
        """Notes that never end do so with the last message of the song."""
        for track, channel, note in list(self.sounding):
            off = mido.Message("note_off", channel=channel, note=note)
            self._end(serial, Event(tick, self.clock(tick), off), track)
