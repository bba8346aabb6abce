"""The lead and what answers it. On beats a melody has chord tones, between them steps of the scale."""

from dataclasses import dataclass

import numpy as np

from prep.composition.song import Note, Player, Section, Song, accent, pick, span_at
from prep.composition.theory import nearest, scale_step

# a comfortable middle for a program's family; leads sit above the chords, counter lines among them
_CENTRE = {"lead": 74, "counter": 62}
_FAMILY_CENTRE = {3: 66, 7: 69, 8: 69, 9: 79, 5: 72}
_REACH = 11  # semitones either way
_DENSITY = {"singing": 0.35, "busy": 0.6, "sparse": 0.2}


@dataclass(frozen=True)
class _Cell:
    """A bar of a motif: onsets in steps, and for each how many scale steps it moves from the note before."""

    onsets: tuple[int, ...]
    moves: tuple[int, ...]


def play_lead(song: Song, player: Player, section: Section) -> list[Note]:
    """Phrases of four bars, a b a' c, the last one ending on a long chord tone and a breath."""
    centre = _FAMILY_CENTRE.get(player.program // 8, _CENTRE["lead"])
    if section.kind == "end":
        return [Note(section.start, song.metre.steps, nearest(centre, (section.spans[0].chord.root,)), 0.8)]
    rng = song.rng("lead", section.kind)
    first, second = _cell(song, player, rng), _cell(song, player, rng)
    cadence = _Cell((0,), (pick(rng, (-1, 1)),))
    centre += 3 if section.kind == "chorus" else 0
    notes: list[Note] = []
    pitch = centre
    for bar in range(section.bars):
        cell = cadence if bar % 4 == 3 else (first, second)[bar % 2]
        at = section.start + bar * song.metre.steps
        added = _sing(song, section, cell, at, pitch, centre)
        notes += added
        pitch = added[-1].pitch
    return notes


def play_counter(song: Song, player: Player, section: Section) -> list[Note]:
    """Long tones, each the chord tone nearest to the last one but not the same; `answer` rests every other bar."""
    centre = _CENTRE["counter"]
    notes: list[Note] = []
    pitch = centre
    for span in section.spans:
        if player.manner == "answer" and span.start // song.metre.steps % 2 == 0 and section.kind != "end":
            continue
        # third and fifth say more about a chord than the root that the bass has
        tones = [t for t in span.chord.tones[1:3] if t != pitch % 12] or [span.chord.tones[1]]
        pitch = nearest(pitch * 0.8 + centre * 0.2, tones)
        force = 0.55 + 0.2 * section.intensity
        notes.append(Note(span.start, span.steps * 0.97, pitch, force))
    return notes


def _cell(song: Song, player: Player, rng: np.random.Generator) -> _Cell:
    density = _DENSITY[player.manner]
    pulses = song.metre.pulses
    wanted = {p for p in pulses if rng.random() < 0.45 + density}
    wanted |= {s for s in range(0, song.metre.steps, 2) if rng.random() < density * 0.7}
    if player.manner == "busy":
        wanted |= {s for s in range(1, song.metre.steps, 2) if rng.random() < 0.12}
    onsets = tuple(sorted(wanted or {0}))
    moves = tuple(int(m) for m in rng.choice([-3, -2, -1, -1, 1, 1, 2, 3], size=len(onsets)))
    return _Cell(onsets, moves)


def _sing(song: Song, section: Section, cell: _Cell, at: int, pitch: int, centre: int) -> list[Note]:
    notes = []
    ends = (*cell.onsets[1:], song.metre.steps * (0.7 if len(cell.onsets) == 1 else 0.95))
    for onset, end, move in zip(cell.onsets, ends, cell.moves, strict=True):
        start = at + onset
        span = span_at(section.spans, start)
        length = min(end - onset, span.end - start)
        if abs(pitch - centre) > _REACH:
            move = -abs(move) if pitch > centre else abs(move)
        pitch = scale_step(pitch, span.chord.scale, move)
        # a strong beat, and every note that lasts, is a chord tone
        if onset in song.metre.pulses or length > 2 or start == span.start:
            pitch = nearest(pitch, span.chord.tones)
        force = (0.62 + 0.25 * section.intensity) * accent(song.metre, start)
        notes.append(Note(start, 0.93 * length, pitch, min(1.0, force + 0.004 * (pitch - centre))))
    return notes
