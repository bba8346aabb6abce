"""The parts that state the chords: comping, pads, broken chords, and brass hits. Each plays chord tones only."""

from collections.abc import Sequence

import numpy as np

from prep.composition.song import Note, Player, Section, Song, Span, accent, pick, span_at
from prep.composition.theory import nearest, voice

_CENTRE = {"keys": 60, "guitar": 57, "pad": 62, "brass": 65, "sparkle": 74}
_STRUM_STEPS = 0.12  # between two strings, about 15 ms


def play_comping(song: Song, player: Player, section: Section) -> list[Note]:
    """Chords in the player's manner, in close voicings that move little; held chords at the end."""
    rng = song.rng(player.role, section.kind)
    voicings = _voicings(section.spans, _CENTRE[player.role], 4 if player.role == "guitar" else 3)
    if section.kind == "end":
        return [Note(section.start, song.metre.steps, pitch, 0.75) for pitch in voicings[section.spans[0]]]
    if player.manner == "arpeggio":
        return _broken(song, section, voicings, 2, (0, 1, 2, 1), 0.66)
    rhythm = _comping_rhythm(song, player.manner, rng)
    notes = []
    for start, length in _over_bars(song, section, rhythm):
        span = span_at(section.spans, start)
        # a chord is left when the harmony leaves it
        length = min(length, span.end - start)
        force = (0.55 + 0.25 * section.intensity) * accent(song.metre, start)
        bass_chuck = player.manner == "boom" and start % song.metre.steps == 0
        pitches = voicings[span] if not bass_chuck else (nearest(48, (span.chord.root,)),)
        strum = _STRUM_STEPS if player.manner == "strum" else 0.0
        ordered = pitches if start % 4 == 0 else pitches[::-1]
        notes += [Note(start + i * strum, length - i * strum, p, force) for i, p in enumerate(ordered)]
    return notes


def play_pad(song: Song, player: Player, section: Section) -> list[Note]:
    """Whole chords, tones that two chords share held over."""
    voicings = _voicings(section.spans, _CENTRE["pad"], 4)
    force = 0.5 + 0.2 * section.intensity
    notes: list[Note] = []
    for span in section.spans:
        held = {note.pitch: i for i, note in enumerate(notes) if note.end == span.start}
        for pitch in voicings[span]:
            if pitch in held and player.manner == "swell":
                old = notes[held[pitch]]
                notes[held[pitch]] = Note(old.start, old.length + span.steps, pitch, old.force)
            else:
                notes.append(Note(span.start, span.steps, pitch, force))
    return notes


def play_sparkle(song: Song, player: Player, section: Section) -> list[Note]:
    """Broken chords above the rest."""
    rng = song.rng("sparkle", section.kind)
    voicings = _voicings(section.spans, _CENTRE["sparkle"], 4)
    if section.kind == "end":
        return [Note(section.start + 2 * i, 8, p, 0.6) for i, p in enumerate(voicings[section.spans[0]])]
    order = {"up": (0, 1, 2, 3), "down": (3, 2, 1, 0)}.get(player.manner, (0, 1, 2, 3, 2, 1))
    every = 1 if section.kind == "chorus" and song.bpm < 112 and rng.random() < 0.5 else 2
    notes = _broken(song, section, voicings, every, order, 0.6)
    # in half of the songs it answers, that is, plays every second bar
    answers = song.rng("sparkle", "answers").random() < 0.5
    return [note for note in notes if not answers or note.start // song.metre.steps % 2]


def play_brass(song: Song, player: Player, section: Section) -> list[Note]:
    """Short chords on a rhythm of the song's own; a riff also repeats its top note."""
    voicings = _voicings(section.spans, _CENTRE["brass"], 3)
    if section.kind == "end":
        return [Note(section.start, song.metre.steps * 0.75, pitch, 0.9) for pitch in voicings[section.spans[0]]]
    rng = song.rng("brass", section.kind)
    places = np.flatnonzero(rng.random(song.metre.steps) < 0.2)
    rhythm = [(int(place), 1.6) for place in places] or [(0, 2.0), (song.metre.pulses[-1] + 2, 1.5)]
    if player.manner == "riff":
        rhythm = [(start, 1.2) for start, _ in rhythm] + [(0, 1.2)]
    notes = []
    for start, length in _over_bars(song, section, sorted(set(rhythm))):
        if start // song.metre.steps % 2 and player.manner == "stabs":
            continue
        span = span_at(section.spans, start)
        force = 0.9 * accent(song.metre, start)
        notes += [Note(start, min(length, span.end - start), pitch, force) for pitch in voicings[span]]
    return notes


def _voicings(spans: Sequence[Span], centre: int, count: int) -> dict[Span, tuple[int, ...]]:
    voicings: dict[Span, tuple[int, ...]] = {}
    previous: tuple[int, ...] = ()
    for span in spans:
        previous = voicings[span] = voice(span.chord, centre, previous, count)
    return voicings


def _over_bars(song: Song, section: Section, rhythm: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    steps = song.metre.steps
    return [(section.start + bar * steps + start, length) for bar in range(section.bars) for start, length in rhythm]


def _broken(
    song: Song, section: Section, voicings: dict[Span, tuple[int, ...]], every: int, order: Sequence[int], force: float
) -> list[Note]:
    notes = []
    for span in section.spans:
        pitches = voicings[span]
        for i, start in enumerate(range(span.start, span.end, every)):
            pitch = pitches[order[i % len(order)] % len(pitches)]
            length = min(float(every) * 1.5, span.end - start)
            notes.append(Note(start, length, pitch, (force + 0.15 * section.intensity) * accent(song.metre, start)))
    return notes


def _comping_rhythm(song: Song, manner: str, rng: np.random.Generator) -> list[tuple[int, float]]:
    """(step in the bar, length) of a bar of comping."""
    steps, pulses = song.metre.steps, song.metre.pulses
    ends = (*pulses[1:], steps)
    beats = [(a, b - a) for a, b in zip(pulses, ends, strict=True)]
    if manner == "sustain":
        half = pulses[(len(pulses) + 1) // 2]
        return [(0, float(half)), (half, float(steps - half))]
    if manner == "offbeat":
        return [(start + length // 2, 1.2) for start, length in beats]
    if manner == "strum":
        hits = [step for step in range(0, steps, 2) if step in pulses or rng.random() < 0.7]
        return [(step, 1.8) for step in hits]
    if manner == "boom":
        return [(start, 2.0 if start else 3.5) for start, _ in beats]
    if manner == "scratch":
        return [(step, 0.7) for step in range(steps) if rng.random() < (0.55 if step % 4 == 3 else 0.3)] or [(0, 0.7)]
    if manner == "charleston":
        return [(0, 5.0), (6, 1.5)] if rng.random() < 0.6 or steps < 16 else [(2, 1.5), (10, 1.5)]
    if manner == "montuno":
        return [(step, 1.5) for step in range(steps) if step in (0, 3, 4, 6, 8, 11, 12, 14)]
    if manner == "push":
        inner = sorted({0, *(pick(rng, range(2, steps, 2)) for _ in range(3))})
        return [(a, 0.8 * (b - a)) for a, b in zip(inner, [*inner[1:], steps], strict=True)]
    return [(start, 0.9 * length) for start, length in beats]
