"""Songs and parts as MIDI files, which `prep.midi` reads as the same parts again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido

from prep.instruments import DRUMS
from prep.midi import BANK_LSB, BANK_MSB, DRUM_CHANNEL, MELODY_BANK, RHYTHM_BANKS, Part, Song

_Timed = list[tuple[int, Any]]
_Banks = tuple[int, int]  # most and least significant


def write_part(path: Path, song: Song, part: Part) -> None:
    """One part as a MIDI file of its own, with the song's tempi; drums on channel 10, whatever channel they were on."""
    channel = DRUM_CHANNEL if part.program == DRUMS else (part.channel if part.channel != DRUM_CHANNEL else 0)
    select = [(0, message) for message in _select(part, channel, (0, 0))]
    played = [(event.tick, event.message.copy(channel=channel)) for event in part.events]
    _save(path, song, [[(0, mido.MetaMessage("track_name", name=part.name)), *select, *played]])


def write_song(path: Path, song: Song) -> None:
    """All parts as one MIDI file, a track each. Parts that share a channel select their program before their notes, and
    the channel's controllers, which each of them holds, are in the first one's track."""
    tracks: list[_Timed] = [[(0, mido.MetaMessage("track_name", name=part.name))] for part in song.parts]
    first: dict[int, int] = {}
    for i, part in enumerate(song.parts):
        first.setdefault(part.channel, i)
    now: dict[int, tuple[_Banks, int]] = {}
    begun: set[int] = set()
    timed = ((event.tick, i, event.message) for i, part in enumerate(song.parts) for event in part.events)
    for tick, i, message in sorted(timed, key=lambda item: item[:2]):
        part = song.parts[i]
        wanted = (_banks(part, part.channel), part.preset)
        if message.type == "note_on" and (i not in begun or now[part.channel] != wanted):
            banks = now[part.channel][0] if part.channel in now else (0, 0)
            tracks[i] += [(tick, select) for select in _select(part, part.channel, banks)]
            now[part.channel] = wanted
            begun.add(i)
        if message.type in ("note_on", "note_off") or first[part.channel] == i:
            tracks[i].append((tick, message))
    _save(path, song, tracks)


def _banks(part: Part, channel: int) -> _Banks:
    """What `prep.midi` reads as this part's bank on that channel, and as drums or not."""
    if part.program == DRUMS:
        return (0 if channel == DRUM_CHANNEL else RHYTHM_BANKS[1]), 0
    if channel == DRUM_CHANNEL or part.bank in (*RHYTHM_BANKS, MELODY_BANK):
        return MELODY_BANK, part.bank
    return part.bank, 0


def _select(part: Part, channel: int, banks: _Banks) -> list[Any]:
    """Bank and program of a part, for a channel that has these `banks` now."""
    wanted = zip((BANK_MSB, BANK_LSB), _banks(part, channel), banks, strict=True)
    changes = [
        mido.Message("control_change", channel=channel, control=control, value=value)
        for control, value, has in wanted
        if value != has
    ]
    return [*changes, mido.Message("program_change", channel=channel, program=part.preset)]


def _save(path: Path, song: Song, tracks: Sequence[_Timed]) -> None:
    file = mido.MidiFile(type=1, ticks_per_beat=song.ticks_per_beat)
    file.tracks.append(_track(song.meta))
    file.tracks.extend(_track(timed) for timed in tracks)
    file.save(path)


def _track(timed: Sequence[tuple[int, Any]]) -> mido.MidiTrack:
    track, now = mido.MidiTrack(), 0
    for tick, message in timed:
        track.append(message.copy(time=tick - now))
        now = tick
    return track
