"""Draws the plan of a song: style, key, metre, tempo, sections, chords, and who plays where."""

import numpy as np

from prep.composition.song import Player, Section, Song, Span, generator, pick
from prep.composition.styles import BLUES, FORMS, GROOVES, METRES, PROGRESSIONS, STYLES, Metre, Style
from prep.composition.theory import parse_chord

_INTENSITY = {"intro": 0.45, "verse": 0.6, "chorus": 0.95, "bridge": 0.55, "outro": 0.5, "end": 0.7}
_LENGTH_S, _SHORT_FORM = (33.0, 112.0), ("intro", "verse", "chorus")
_MANNERS = {
    "pad": ("swell", "swell", "steady"),
    "lead": ("singing", "busy", "sparse"),
    "counter": ("guide", "answer"),
    "sparkle": ("up", "updown", "down"),
    "brass": ("stabs", "riff"),
}
# the most that a role is drawn to one side
_PAN = {"lead": 8, "keys": 28, "guitar": 30, "pad": 20, "counter": 34, "sparkle": 40, "brass": 26}
_VOLUME = {"drums": 108, "bass": 106, "lead": 110, "keys": 96, "guitar": 94, "pad": 84, "counter": 90, "sparkle": 88}
_PLAIN_VOLUME = 92


def plan_song(seed: int, number: int, short: bool = False) -> Song:
    """Everything that is decided before the first note; `short` keeps the song to some ten seconds, for tests."""
    rng = generator(seed, number, "plan")
    style = pick(rng, STYLES)
    metre_name = pick(rng, style.metres)
    metre = METRES[metre_name]
    mode = pick(rng, style.modes)
    tonic = int(rng.integers(12))
    bpm = int(rng.integers(style.bpm[0], style.bpm[1] + 1))
    if metre_name in ("6/8", "12/8"):
        # the beat is a dotted quarter there: at an equal pulse its quarters are faster
        bpm = min(round(1.4 * bpm), 176)
    swing = pick(rng, style.swing) if metre.denominator == 4 else 0.0
    groove = pick(rng, [g for name in style.grooves for g in GROOVES[name].get(metre_name, ())])
    players = _players(rng, style)
    sections = _sections(rng, style, metre, 15.0 * metre.steps / bpm, (tonic, mode), players, short)
    return Song(number, seed, style, tonic, mode, metre, groove, bpm, swing, players, sections)


def _players(rng: np.random.Generator, style: Style) -> tuple[Player, ...]:
    """Drums, bass, something that comps, a lead, and enough others to be at least four beside drums and bass."""
    extras = ["pad", "counter", "sparkle", "brass"]
    comping = pick(rng, (["keys", "guitar"], ["keys", "guitar"], ["keys"], ["guitar"]))
    count = int(rng.integers(4 - 1 - len(comping), len(extras) + 1))
    chosen = sorted(rng.choice(len(extras), size=count, replace=False))
    roles = ["drums", "bass", *comping, "lead", *(extras[i] for i in chosen)]
    taken: set[int] = set()
    players = []
    for role in roles:
        options = [p for p in style.palette[role] if role == "drums" or p not in taken] or list(style.palette[role])
        program = pick(rng, options)
        manners = {"bass": style.bass, "keys": style.comping, "guitar": style.comping, **_MANNERS}.get(role, ("",))
        side = 1 if rng.random() < 0.5 else -1
        widest = _PAN.get(role, 0)
        pan = 64 + side * int(rng.integers(widest // 3, widest + 1))
        volume = _VOLUME.get(role, _PLAIN_VOLUME) + int(rng.integers(-8, 9))
        players.append(Player(role, program, pick(rng, manners), pan, volume))
        if role != "drums":
            taken.add(program)
    return tuple(players)


def _sections(
    rng: np.random.Generator,
    style: Style,
    metre: Metre,
    bar_s: float,
    key: tuple[int, str],
    players: tuple[Player, ...],
    short: bool,
) -> tuple[Section, ...]:
    form, unit = _form(rng, style, bar_s, short)
    progressions = {kind: _progression(rng, style, key[1], kind) for kind in ("verse", "chorus", "bridge")}
    bars_per_chord = pick(rng, style.bars_per_chord)
    roles = [player.role for player in players]
    sections: list[Section] = []
    start = 0
    for kind in (*form, "end"):
        bars = {"intro": max(unit // 2, 1), "outro": max(unit // 2, 1), "end": 1}.get(kind, unit)
        source = {"intro": pick(rng, ("verse", "chorus")), "outro": "chorus"}.get(kind, kind)
        symbols = ["1"] if kind == "end" else progressions[source]
        spans = _spans(symbols, start, bars, metre, bars_per_chord, key, style.chord_size)
        everyone = kind == "end" or (kind == "chorus" and not any(s.kind == "chorus" for s in sections))
        active = frozenset(roles) if everyone else _active(rng, kind, roles)
        sections.append(Section(kind, start, bars, spans, active, _INTENSITY[kind] + float(rng.uniform(-0.05, 0.05))))
        start += bars * metre.steps
    return tuple(sections)


def _form(rng: np.random.Generator, style: Style, bar_s: float, short: bool) -> tuple[tuple[str, ...], int]:
    """A form and the bars of its sections, within the length that a song may have."""
    if short:
        return _SHORT_FORM, 2
    units = (12,) if style.name == "blues" else (4, 8, 16)
    fitting = []
    for form in FORMS:
        for unit in units:
            halves = sum(kind in ("intro", "outro") for kind in form)
            length_s = bar_s * (unit * (len(form) - halves) + max(unit // 2, 1) * halves + 1)
            if _LENGTH_S[0] <= length_s <= _LENGTH_S[1]:
                fitting.append((form, unit))
    return pick(rng, fitting) if fitting else (FORMS[-1], min(units))


def _progression(rng: np.random.Generator, style: Style, mode: str, kind: str) -> list[str]:
    if style.name == "blues" and kind != "bridge":
        return BLUES.split()
    first = pick(rng, PROGRESSIONS[mode]).split()
    # a section of two progressions comes round less often
    return first + pick(rng, PROGRESSIONS[mode]).split() if rng.random() < 0.3 else first


def _spans(
    symbols: list[str], start: int, bars: int, metre: Metre, bars_per_chord: float, key: tuple[int, str], size: int
) -> tuple[Span, ...]:
    """Chords for a section, its last one brought home to the degree that leads back where the progression does."""
    halves = metre.pulses[(len(metre.pulses) + 1) // 2]
    spans: list[Span] = []
    end = start + bars * metre.steps
    at, i = start, 0
    while at < end:
        steps = metre.steps * int(bars_per_chord)
        if bars_per_chord < 1:
            steps = halves if (at - start) % metre.steps == 0 else metre.steps - halves
        steps = min(steps, end - at)
        spans.append(Span(at, steps, parse_chord(symbols[i % len(symbols)], *key, size)))
        at, i = at + steps, i + 1
    return tuple(spans)


def _active(rng: np.random.Generator, kind: str, roles: list[str]) -> frozenset[str]:
    """Who plays in a section: instruments enter and leave, so that stems are silent in places."""
    chances: dict[str, dict[str, float]] = {
        "intro": {"drums": 0.4, "bass": 0.4, "lead": 0.1, "pad": 0.6, "sparkle": 0.6, "counter": 0.2, "brass": 0.1},
        "verse": {"drums": 0.95, "bass": 0.97, "lead": 0.85, "pad": 0.5, "sparkle": 0.3, "counter": 0.3, "brass": 0.2},
        "chorus": {"drums": 1.0, "bass": 1.0, "lead": 0.9, "pad": 0.85, "sparkle": 0.7, "counter": 0.7, "brass": 0.75},
        "bridge": {"drums": 0.5, "bass": 0.7, "lead": 0.5, "pad": 0.85, "sparkle": 0.6, "counter": 0.75, "brass": 0.2},
        "outro": {"drums": 0.6, "bass": 0.8, "lead": 0.35, "pad": 0.8, "sparkle": 0.5, "counter": 0.4, "brass": 0.2},
    }
    comping = [role for role in roles if role in ("keys", "guitar")]
    # somebody always states the chords
    sure = pick(rng, comping)
    optional = {role for role in roles if rng.random() < chances[kind].get(role, 0.6)}
    return frozenset(optional | {sure})
