"""The nouns of composition: what a song is before anyone plays. Time is counted in steps, sixteenth notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from prep.composition.styles import Metre, Style
from prep.composition.theory import Chord
from prep.draws import rng_for

_T = TypeVar("_T")


@dataclass(frozen=True)
class Note:
    """Times in steps from the start of the song; `force` is 0 to 1."""

    start: float
    length: float
    pitch: int
    force: float

    @property
    def end(self) -> float:
        return self.start + self.length


@dataclass(frozen=True)
class Span:
    """One chord, from step `start` of the song for `steps`."""

    start: int
    steps: int
    chord: Chord

    @property
    def end(self) -> int:
        return self.start + self.steps


@dataclass(frozen=True)
class Section:
    """`kind` is intro, verse, chorus, bridge, outro or end; `players` are the roles that play in it."""

    kind: str
    start: int
    bars: int
    spans: tuple[Span, ...]
    players: frozenset[str]
    intensity: float


@dataclass(frozen=True)
class Player:
    """One instrument: `program` is 0-based (a kit for drums), `manner` a way of playing the role; pan and volume are
    controller values, 0 to 127."""

    role: str
    program: int
    manner: str
    pan: int
    volume: int


@dataclass(frozen=True)
class Song:
    """`bpm` counts quarter notes, four steps each; `swing` delays the middle of each beat by that share of it."""

    number: int
    seed: int
    style: Style
    tonic: int
    mode: str
    metre: Metre
    groove: dict[int, str]
    bpm: int
    swing: float
    players: tuple[Player, ...]
    sections: tuple[Section, ...]

    @property
    def step_s(self) -> float:
        return 15.0 / self.bpm

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(span for section in self.sections for span in section.spans)

    def rng(self, *keys: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that a change in one part leaves the others as they are."""
        return generator(self.seed, self.number, *keys)

    def time_s(self, step: float) -> float:
        """When a step sounds: swing bends what lies within a beat of four steps."""
        if not self.swing:
            return step * self.step_s
        beat, place = divmod(step, 4.0)
        middle = 2.0 + 4.0 * self.swing
        bent = place * middle / 2.0 if place < 2.0 else middle + (place - 2.0) * (4.0 - middle) / 2.0
        return (4.0 * beat + bent) * self.step_s


def generator(seed: int, number: int, *keys: str) -> np.random.Generator:
    return rng_for(seed, f"song{number:05d}", "/".join(keys))


def pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


def span_at(spans: Sequence[Span], step: float) -> Span:
    """The chord that sounds at a step; what lies beyond the spans counts to the last."""
    return next((span for span in spans if step < span.end), spans[-1])


def accent(metre: Metre, step: float) -> float:
    """How strong a step is by its place in the bar: 1 on its first beat, less on the others, least between them."""
    place = step % metre.steps
    return 1.0 if place == 0 else 0.9 if place in metre.pulses else 0.78
