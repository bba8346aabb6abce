"""Scales, chords and voicings. A pitch is a MIDI number, a pitch class one of 0 to 11 (C is 0)."""

from collections.abc import Sequence
from dataclasses import dataclass

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}


@dataclass(frozen=True)
class Chord:
    """`tones` are pitch classes, root first, in thirds; `scale` is what may be played over it, from the tonic up."""

    tones: tuple[int, ...]
    scale: tuple[int, ...]

    @property
    def root(self) -> int:
        return self.tones[0]

    @property
    def fifth(self) -> int:
        return self.tones[2]


def parse_chord(symbol: str, tonic: int, mode: str, size: int) -> Chord:
    """A chord of `size` tones on a degree of the mode, "1" to "7". A minor fifth degree with "#" takes the harmonic
    minor's leading note, in the chord and in the scale over it."""
    steps = list(SCALES[mode])
    if symbol.endswith("#"):
        steps[6] = 11
    degree = int(symbol[0]) - 1
    tones = tuple((tonic + steps[(degree + 2 * i) % 7]) % 12 for i in range(size))
    return Chord(tones, tuple((tonic + step) % 12 for step in steps))


def nearest(pitch: float, classes: Sequence[int]) -> int:
    """The pitch nearest to `pitch` among those classes, the lower one of two."""
    low = round(pitch) - 6
    return min((p for p in range(low, low + 13) if p % 12 in classes), key=lambda p: (abs(p - pitch), p))


def scale_step(pitch: int, scale: Sequence[int], steps: int) -> int:
    """Moves a pitch by so many notes of the scale, up or down."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while pitch % 12 not in scale:
            pitch += direction
    return pitch


def voice(chord: Chord, centre: int, previous: Sequence[int], count: int) -> tuple[int, ...]:
    """A close voicing of `count` tones around `centre`: the inversion that moves least from the previous one."""
    candidates = []
    for inversion in range(len(chord.tones)):
        pitch = nearest(centre - 5, (chord.tones[inversion],))
        notes = [pitch]
        for i in range(1, count):
            tone = chord.tones[(inversion + i) % len(chord.tones)]
            notes.append(notes[-1] + ((tone - notes[-1]) % 12 or 12))
        candidates.append(tuple(notes))
    return min(candidates, key=lambda notes: _movement(notes, previous) + abs(sum(notes) / len(notes) - centre))


def _movement(notes: Sequence[int], previous: Sequence[int]) -> float:
    return float(sum(abs(a - b) for a, b in zip(notes, previous, strict=False)))
