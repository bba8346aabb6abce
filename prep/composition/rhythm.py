"""Drums and bass."""

from itertools import pairwise

import numpy as np

from prep.composition.song import Note, Player, Section, Song, Span, pick
from prep.composition.styles import (
    CLOSED_HAT,
    CRASH,
    KICK,
    OPEN_HAT,
    PEDAL_HAT,
    RIDE,
    SNARE,
    TOMS,
)
from prep.composition.theory import nearest, scale_step

_FORCES = {"x": 0.92, "o": 0.7, "-": 0.38}
_LOW, _HIGH = 28, 52  # E1 to E3: what an electric bass plays


def play_drums(song: Song, section: Section) -> list[Note]:
    """The song's groove, thinner in quiet sections, with a crash where a loud one begins and a fill where it ends."""
    steps = song.metre.steps
    if section.kind == "end":
        return [Note(section.start, 4, key, 0.9) for key in (KICK, CRASH)]
    rng = song.rng("drums", section.kind)
    lanes = dict(song.groove)
    if section.kind == "intro" and rng.random() < 0.6:
        lanes = {key: lane for key, lane in lanes.items() if key not in (SNARE, KICK)} or lanes
    if section.kind == "chorus" and CLOSED_HAT in lanes and rng.random() < 0.5:
        lanes[RIDE] = lanes.pop(CLOSED_HAT)
    fill_bar = section.bars - 1 if section.bars > 1 and rng.random() < 0.8 else -1
    notes = []
    for bar in range(section.bars):
        at = section.start + bar * steps
        fill_from = steps - pick(rng, (4, 8)) if bar == fill_bar else steps
        notes += _groove_bar(lanes, at, fill_from, section.intensity, rng)
        notes += _fill(rng, at + fill_from, at + steps)
    if section.kind in ("chorus", "verse") and section.intensity > 0.55:
        notes.append(Note(section.start, 4, CRASH, 0.6 + 0.3 * section.intensity))
    return notes


def _groove_bar(lanes: dict[int, str], at: int, until: int, intensity: float, rng: np.random.Generator) -> list[Note]:
    notes = []
    for key, lane in lanes.items():
        for step, mark in enumerate(lane[:until]):
            if mark == "." or (mark == "-" and rng.random() < 0.35):
                continue
            length = 3.0 if key in (OPEN_HAT, RIDE, CRASH) else 1.0
            notes.append(Note(at + step, length, key, _FORCES[mark] * (0.7 + 0.3 * intensity)))
    # a drummer has one hi-hat: it is not open and closed at once
    open_steps = {note.start for note in notes if note.pitch == OPEN_HAT}
    return [n for n in notes if n.pitch not in (CLOSED_HAT, PEDAL_HAT) or n.start not in open_steps]


def _fill(rng: np.random.Generator, start: int, end: int) -> list[Note]:
    """Sixteenths on snare and toms, from high to low, rising in force."""
    drums = sorted(rng.choice([SNARE, *TOMS], size=end - start) if end > start else [], reverse=True)
    keep = [i for i in range(end - start) if i % 2 == 0 or rng.random() < 0.6]
    return [Note(start + i, 1.0, int(drums[i]), 0.6 + 0.35 * i / (end - start)) for i in keep]


def play_bass(song: Song, player: Player, section: Section) -> list[Note]:
    """Roots first, then fifths, octaves and steps of the scale that lead to the next root."""
    if section.kind == "end":
        return [Note(section.start, song.metre.steps, _root(section.spans[0]), 0.85)]
    rng = song.rng("bass", section.kind)
    notes: list[Note] = []
    spans = section.spans
    for i, span in enumerate(spans):
        following = spans[i + 1] if i + 1 < len(spans) else spans[0]
        for bar_start, bar_end in _bars(span, section.start, song.metre.steps):
            last = bar_end == span.end
            notes += _bass_bar(song, player.manner, span, (bar_start, bar_end), _root(following) if last else None, rng)
    return notes


def _bars(span: Span, section_start: int, steps: int) -> list[tuple[int, int]]:
    """The pieces of a chord that lie within one bar each."""
    edges = [s for s in range(section_start, span.end + steps, steps) if span.start < s < span.end]
    bounds = [span.start, *edges, span.end]
    return list(pairwise(bounds))


def _root(span: Span) -> int:
    return nearest((_LOW + _HIGH) / 2 - 4, (span.chord.root,))


def _bass_bar(
    song: Song, manner: str, span: Span, bar: tuple[int, int], next_root: int | None, rng: np.random.Generator
) -> list[Note]:
    start, end = bar
    root = _root(span)
    fifth = nearest(root + (7 if root < 42 else -5), (span.chord.fifth,))
    octave = root + 12 if root + 12 <= _HIGH else root - 12
    onsets = _onsets(song, manner, end - start, start % song.metre.steps)
    notes = []
    for i, step in enumerate(onsets):
        until = onsets[i + 1] if i + 1 < len(onsets) else end - start
        final = i == len(onsets) - 1 and i > 0
        pitch = root
        if manner == "walking":
            pitch = _walk(span, root, fifth, octave, i, next_root if final else None, rng)
        elif manner == "fifths" and i % 2:
            pitch = fifth
        elif manner in ("octaves", "offbeats") and i % 2:
            pitch = octave
        elif manner in ("bossa", "syncopated", "locked") and i and rng.random() < 0.55:
            pitch = pick(rng, (fifth, octave, root))
        elif manner == "eighths" and final and next_root is not None and rng.random() < 0.5:
            pitch = _approach(span, next_root)
        length = (until - step) * (0.95 if manner in ("held", "walking", "roots") else 0.8)
        notes.append(Note(start + step, length, pitch, 0.82 if step == 0 else 0.7))
    return notes


def _onsets(song: Song, manner: str, length: int, offset: int) -> list[int]:
    """Steps within a piece of a bar of `length`, which begins `offset` steps into its bar; always 0 first."""
    pulses = [p - offset for p in song.metre.pulses if offset <= p < offset + length]
    if manner == "held":
        wanted = [0]
    elif manner == "locked":
        kick = song.groove.get(KICK, "")
        wanted = [s - offset for s in range(offset, offset + length) if s < len(kick) and kick[s] in "xo"]
    elif manner in ("eighths", "octaves", "offbeats"):
        wanted = list(range(0, length, 2))
    elif manner == "bossa":
        wanted = [s for p in range(0, length, 8) for s in (p, p + 6) if s < length]
    elif manner == "syncopated":
        wanted = [s for p in range(0, length, 8) for s in (p, p + 3, p + 6) if s < length]
    elif manner == "fifths" and len(pulses) > 2:
        wanted = pulses[:: 2 if len(pulses) % 2 == 0 else len(pulses) - 1]
    else:
        wanted = pulses
    return sorted({0, *wanted})


def _walk(
    span: Span, root: int, fifth: int, octave: int, i: int, next_root: int | None, rng: np.random.Generator
) -> int:
    if i == 0:
        return root
    if next_root is not None:
        return _approach(span, next_root)
    third = nearest(root + 4, (span.chord.tones[1],))
    return (third, fifth, octave)[(i - 1) % 3] if rng.random() < 0.7 else scale_step(root, span.chord.scale, i)


def _approach(span: Span, target: int) -> int:
    """The note of the key next to the coming root, from below or, where that leaves the range, from above."""
    below = scale_step(target, span.chord.scale, -1)
    return below if below >= _LOW else scale_step(target, span.chord.scale, 1)
