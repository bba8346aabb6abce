"""The tables that songs are drawn from: metres, drum grooves, progressions and styles.

Time is counted in sixteenths ("steps"). A groove names its drum lanes by General MIDI percussion key; in a lane `x` is
an accent, `o` a normal hit, `-` a ghost and `.` nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metre:
    """`pulses` are the steps of a bar where the beat falls."""

    numerator: int
    denominator: int
    steps: int
    pulses: tuple[int, ...]


METRES = {
    "4/4": Metre(4, 4, 16, (0, 4, 8, 12)),
    "3/4": Metre(3, 4, 12, (0, 4, 8)),
    "6/8": Metre(6, 8, 12, (0, 6)),
    "12/8": Metre(12, 8, 24, (0, 6, 12, 18)),
    "5/4": Metre(5, 4, 20, (0, 4, 8, 12, 16)),
    "7/8": Metre(7, 8, 14, (0, 4, 8)),
}

KICK, RIM, SNARE, CLAP, CLOSED_HAT, PEDAL_HAT, OPEN_HAT = 36, 37, 38, 39, 42, 44, 46
CRASH, RIDE, TAMBOURINE, COWBELL, LOW_CONGA, HIGH_CONGA, SHAKER, CLAVES = 49, 51, 54, 56, 64, 63, 70, 75
TOMS = (50, 48, 45, 43)

Groove = dict[int, str]

GROOVES: dict[str, dict[str, tuple[Groove, ...]]] = {
    "rock": {
        "4/4": (
            {KICK: "x.......x.o.....", SNARE: "....x.......x...", CLOSED_HAT: "x.o.x.o.x.o.x.o."},
            {KICK: "x.....o.x.......", SNARE: "....x.......x..-", CLOSED_HAT: "x.o.x.o.x.o.x.o.",
             OPEN_HAT: "..............o."},
            {KICK: "x..o....x.o...o.", SNARE: "....x..-....x...", RIDE: "x...x.o.x...x.o."},
        ),
        "12/8": (
            {KICK: "x...........x...o.......", SNARE: "......x...........x.....",
             CLOSED_HAT: "x.o.o.x.o.o.x.o.o.x.o.o."},
        ),
        "5/4": (
            {KICK: "x.....o.x.......o...", SNARE: "....x.......x.......", CLOSED_HAT: "x.o.x.o.x.o.x.o.x.o."},
        ),
        "7/8": (
            {KICK: "x.....o.......", SNARE: "....x.......x.", CLOSED_HAT: "x.o.x.o.x.o.o."},
            {KICK: "x...o...x.....", SNARE: "......x.....x.", RIDE: "x.o.x.o.x.o.o."},
        ),
        "3/4": (
            {KICK: "x.....o.....", SNARE: "....o...x...", CLOSED_HAT: "x.o.x.o.x.o."},
        ),
        "6/8": (
            {KICK: "x.........o.", SNARE: "......x.....", CLOSED_HAT: "x.o.o.x.o.o."},
        ),
    },
    "soft": {
        "4/4": (
            {KICK: "o.......o.......", RIM: "....o.......o...", CLOSED_HAT: "o.-.o.-.o.-.o.-."},
            {KICK: "o.........o.....", RIM: "........x.......", SHAKER: "o-o-o-o-o-o-o-o-"},
        ),
        "3/4": (
            {KICK: "o...........", RIM: "....o...o...", CLOSED_HAT: "o...-...-..."},
            {KICK: "o.........-.", SNARE: "....-...o...", RIDE: "o...o.-.o..."},
        ),
        "6/8": (
            {KICK: "o.........-.", RIM: "......o.....", CLOSED_HAT: "o.-.-.o.-.-."},
        ),
        "12/8": (
            {KICK: "o...........o.......-...", RIM: "......o...........o.....", CLOSED_HAT: "o.-.-.o.-.-.o.-.-.o.-.-."},
        ),
    },
    "funk": {
        "4/4": (
            {KICK: "x.o...o...o..o..", SNARE: "....x..-.-..x..-", CLOSED_HAT: "x-o-x-o-x-o-x-o-"},
            {KICK: "x..o..o...x.....", SNARE: "....x..-.-.-x...", CLOSED_HAT: "x.oox.oox.oox.o.",
             OPEN_HAT: "..............x."},
        ),
    },
    "dance": {
        "4/4": (
            {KICK: "x...x...x...x...", CLAP: "....x.......x...", OPEN_HAT: "..x...x...x...x.",
             CLOSED_HAT: "o.-oo.-oo.-oo.-o"},
            {KICK: "x...x...x...x.o.", CLAP: "....x.......x..-", OPEN_HAT: "..o...o...o...o.",
             SHAKER: "-o-o-o-o-o-o-o-o"},
        ),
    },
    "swing": {
        "4/4": (
            {RIDE: "x...x.o.x...x.o.", PEDAL_HAT: "....o.......o...", KICK: "-.............-.",
             SNARE: "......-........."},
            {RIDE: "x...x.o.x...x.o.", PEDAL_HAT: "....o.......o...", KICK: "-...-...-...-...",
             SNARE: "..........-....."},
        ),
        "3/4": (
            {RIDE: "x...x.o.x...", PEDAL_HAT: "....o...o...", KICK: "o...........", SNARE: "......-....."},
        ),
        "5/4": (
            {RIDE: "x...x.o.x...x...x...", PEDAL_HAT: "....o...........o...", KICK: "o...........o.......",
             SNARE: "..........-.....-..."},
        ),
    },
    "latin": {
        "4/4": (
            {KICK: "o..oo..oo..oo..o", RIM: "x..o..x...o..x..", CLOSED_HAT: "o-o-o-o-o-o-o-o-"},
            {KICK: "o.....o.o.....o.", CLAVES: "x..o..x...o.x...", HIGH_CONGA: "..o.....-.o.....",
             LOW_CONGA: "......oo......oo", SHAKER: "o-oxo-oxo-oxo-ox"},
            {KICK: "o.......o.......", COWBELL: "x.o.x.o.x.o.x.o.", HIGH_CONGA: "..x.....o.x.....",
             LOW_CONGA: "......oo......oo", RIM: "...x..x........."},
        ),
    },
    "reggae": {
        "4/4": (
            {KICK: "........x.......", RIM: "........x.......", CLOSED_HAT: "o.x.o.x.o.x.o.x."},
            {KICK: "x.......x.......", RIM: "........x.....-.", CLOSED_HAT: "..x...x...x...x.",
             TAMBOURINE: "....o.......o..."},
        ),
    },
    "march": {
        "4/4": (
            {KICK: "x.......x.......", SNARE: "o.--x.--o.--x-o-", CRASH: "................"},
            {KICK: "x...o...x...o...", SNARE: "....x...o.o.x..."},
        ),
        "3/4": (
            {KICK: "x...........", SNARE: "....o...o.--", TAMBOURINE: "....-...-..."},
        ),
        "6/8": (
            {KICK: "x.....o.....", SNARE: "o...-.x...--"},
        ),
    },
}  # fmt: skip

PROGRESSIONS: dict[str, tuple[str, ...]] = {
    "major": (
        "1 5 6 4", "1 6 4 5", "6 4 1 5", "1 4 6 5", "1 4 1 5", "1 3 4 5", "2 5 1 6", "4 5 3 6", "1 4 2 5", "4 1 5 6",
        "1 2 4 5", "3 6 2 5", "4 4 1 1", "1 1 4 5",
    ),
    "minor": (
        "1 6 3 7", "1 4 7 3", "1 7 6 7", "1 4 5# 1", "1 6 4 5#", "6 7 1 1", "1 3 6 7", "4 7 3 6", "1 1 4 5#",
        "6 4 1 5#", "1 7 6 5#", "4 1 5# 1",
    ),
    "dorian": ("1 4 1 4", "1 7 4 1", "1 3 4 1", "1 2 3 4", "4 1 7 1", "1 1 4 7", "3 4 1 1"),
    "mixolydian": ("1 7 4 1", "1 4 7 4", "4 1 7 1", "1 1 7 4", "1 2 7 1", "7 4 1 1"),
}  # fmt: skip
BLUES = "1 1 1 1 4 4 1 1 5 4 1 1"

FORMS: tuple[tuple[str, ...], ...] = (
    ("intro", "verse", "chorus", "verse", "chorus", "outro"),
    ("intro", "verse", "verse", "chorus", "bridge", "chorus"),
    ("verse", "chorus", "verse", "chorus", "bridge", "chorus", "outro"),
    ("intro", "verse", "chorus", "bridge", "chorus", "outro"),
    ("intro", "chorus", "verse", "chorus", "verse", "chorus"),
    ("intro", "verse", "chorus", "bridge", "outro"),
    ("intro", "verse", "chorus", "outro"),
    ("intro", "verse", "chorus"),
)


@dataclass(frozen=True)
class Style:
    """What a kind of music draws from. `bpm` counts quarter notes; `chord_size` is 3 for triads, 4 for sevenths;
    `palette` gives, for each role, the programs that may play it (0-based; drum kits for "drums")."""

    name: str
    bpm: tuple[int, int]
    metres: tuple[str, ...]
    modes: tuple[str, ...]
    grooves: tuple[str, ...]
    swing: tuple[float, ...]
    chord_size: int
    bars_per_chord: tuple[float, ...]
    bass: tuple[str, ...]
    comping: tuple[str, ...]
    palette: dict[str, tuple[int, ...]]


_TRIAD, _SEVENTH = 3, 4
_STRAIGHT = (0.0,)

STYLES: tuple[Style, ...] = (
    Style("rock", (104, 152), ("4/4", "4/4", "12/8", "6/8"), ("major", "minor", "mixolydian", "dorian"), ("rock",),
          _STRAIGHT, _TRIAD, (1, 1, 2), ("eighths", "locked", "roots"), ("block", "strum", "push"),
          {"drums": (0, 8, 16), "bass": (33, 34, 33), "keys": (0, 1, 16, 18), "guitar": (27, 29, 30, 25),
           "pad": (48, 50, 89), "lead": (29, 30, 80, 65, 81), "counter": (48, 60, 42), "sparkle": (11, 14, 2),
           "brass": (61, 62)}),
    Style("pop", (88, 128), ("4/4", "4/4", "6/8"), ("major", "major", "minor"), ("rock", "soft"), (0.0, 0.0, 0.08),
          _TRIAD, (1, 1, 0.5), ("locked", "roots", "fifths"), ("block", "push", "arpeggio", "strum"),
          {"drums": (0, 8, 24), "bass": (33, 34, 38), "keys": (0, 1, 2, 4, 5), "guitar": (24, 25, 27, 26),
           "pad": (48, 89, 90, 52, 91), "lead": (73, 80, 66, 0, 71, 78), "counter": (40, 68, 60, 53),
           "sparkle": (8, 9, 11, 12, 10), "brass": (61, 63)}),
    Style("ballad", (58, 78), ("4/4", "6/8", "12/8", "3/4"), ("major", "minor"), ("soft",), _STRAIGHT, _SEVENTH,
          (1, 0.5), ("fifths", "roots", "held"), ("sustain", "arpeggio"),
          {"drums": (0, 40), "bass": (32, 33, 35), "keys": (0, 4, 5), "guitar": (24, 25), "pad": (48, 49, 52, 92),
           "lead": (40, 71, 66, 73, 68), "counter": (42, 60, 41, 69), "sparkle": (8, 46, 11), "brass": (60, 61)}),
    Style("funk", (92, 114), ("4/4",), ("dorian", "mixolydian"), ("funk",), (0.0, 0.05), _SEVENTH, (1, 2),
          ("locked", "octaves"), ("scratch", "push", "charleston"),
          {"drums": (0, 8, 16), "bass": (36, 37, 33), "keys": (4, 7, 16, 17), "guitar": (27, 28), "pad": (50, 89, 18),
           "lead": (65, 66, 56, 81, 80), "counter": (66, 57, 48), "sparkle": (11, 13), "brass": (61, 61, 62)}),
    Style("bossa", (112, 148), ("4/4",), ("major", "minor", "dorian"), ("latin", "soft"), _STRAIGHT, _SEVENTH, (1, 1,
          2),
          ("bossa", "fifths"), ("charleston", "push", "sustain"),
          {"drums": (0, 40), "bass": (32, 33, 35), "keys": (0, 4, 17), "guitar": (24, 26), "pad": (48, 49, 52),
           "lead": (73, 66, 65, 56, 71), "counter": (68, 42, 60), "sparkle": (11, 12), "brass": (61, 57)}),
    Style("jazz", (116, 184), ("4/4", "4/4", "3/4", "5/4"), ("major", "dorian", "minor"), ("swing",), (0.14, 0.17),
          _SEVENTH, (1, 0.5, 1), ("walking", "walking", "fifths"), ("charleston", "push"),
          {"drums": (32, 40), "bass": (32, 32, 35), "keys": (0, 0, 16), "guitar": (26,), "pad": (48, 49),
           "lead": (66, 65, 56, 71, 64), "counter": (57, 67, 60), "sparkle": (11,), "brass": (61, 59)}),
    Style("reggae", (68, 88), ("4/4",), ("major", "minor", "mixolydian"), ("reggae",), (0.0, 0.06), _TRIAD, (1, 2),
          ("syncopated", "locked"), ("offbeat",),
          {"drums": (0, 8), "bass": (33, 34, 38), "keys": (16, 17, 1), "guitar": (27, 28), "pad": (18, 50, 89),
           "lead": (57, 66, 22, 74), "counter": (57, 65), "sparkle": (12, 13), "brass": (61, 61)}),
    Style("electro", (116, 134), ("4/4",), ("minor", "dorian", "major"), ("dance",), _STRAIGHT, _TRIAD, (1, 2),
          ("offbeats", "eighths", "octaves"), ("push", "offbeat", "block"),
          {"drums": (24, 25), "bass": (38, 39), "keys": (2, 5, 7, 17), "guitar": (28, 84), "pad": (88, 89, 90, 94, 95),
           "lead": (80, 81, 87, 82, 85), "counter": (50, 54, 83), "sparkle": (80, 14, 9, 88), "brass": (62, 63)}),
    Style("folk", (88, 132), ("3/4", "6/8", "4/4"), ("major", "mixolydian", "dorian", "minor"), ("soft", "march"),
          _STRAIGHT, _TRIAD, (1, 2), ("fifths", "roots"), ("boom", "arpeggio", "strum"),
          {"drums": (0, 40), "bass": (32, 33, 35), "keys": (21, 0, 20, 6), "guitar": (24, 25), "pad": (48, 20, 52),
           "lead": (40, 73, 74, 75, 22, 72), "counter": (42, 68, 71), "sparkle": (15, 12, 46), "brass": (60, 58)}),
    Style("orchestral", (76, 138), ("4/4", "3/4", "6/8"), ("major", "minor"), ("march",), _STRAIGHT, _TRIAD, (1, 0.5),
          ("roots", "fifths", "held"), ("block", "boom", "arpeggio"),
          {"drums": (48, 0), "bass": (32, 43), "keys": (6, 0, 19, 46), "guitar": (45, 24), "pad": (48, 49, 52),
           "lead": (40, 68, 73, 71, 56, 72), "counter": (42, 70, 60, 57), "sparkle": (9, 13, 14, 10), "brass": (61,
           60)}),
    Style("progressive", (108, 146), ("5/4", "7/8", "7/8", "4/4"), ("dorian", "minor", "mixolydian"), ("rock",),
          _STRAIGHT, _TRIAD, (1, 2), ("locked", "eighths"), ("push", "arpeggio", "block"),
          {"drums": (0, 16), "bass": (33, 34, 36), "keys": (16, 18, 4, 7), "guitar": (27, 29, 30),
           "pad": (50, 89, 91, 52), "lead": (81, 30, 73, 80), "counter": (48, 60, 54), "sparkle": (11, 12, 14),
           "brass": (62, 61)}),
    Style("blues", (80, 116), ("12/8", "4/4"), ("mixolydian",), ("rock",), (0.16,), _SEVENTH, (1,),
          ("walking", "roots"), ("charleston", "push", "block"),
          {"drums": (0, 8), "bass": (33, 32, 34), "keys": (0, 16, 3), "guitar": (26, 27, 25), "pad": (16, 48),
           "lead": (22, 27, 65, 29), "counter": (66, 57), "sparkle": (11, 0), "brass": (61, 57)}),
    Style("latin", (96, 124), ("4/4",), ("minor", "major", "mixolydian"), ("latin",), _STRAIGHT, _TRIAD, (1, 0.5, 1),
          ("bossa", "syncopated"), ("montuno", "push"),
          {"drums": (0, 8), "bass": (32, 33), "keys": (0, 1), "guitar": (24, 25), "pad": (48, 50),
           "lead": (56, 73, 66, 57), "counter": (57, 40, 66), "sparkle": (11, 12), "brass": (61, 61)}),
)  # fmt: skip
