"""Instrument classes from General MIDI programs, and from names where there is no program.

Programs are 0-based, 0 to 127; drums are 128 and an unknown program is -1, as in Slakh2100's metadata.
"""

DRUMS = 128

# The 16 families of General MIDI in their order, then what has no program: LiveBand conditions on "18 MIDI instrument
# categories"; these are StreamMusicGen's 18 (FACTS 1.8, [I])
CLASSES: tuple[str, ...] = (
    "Piano",
    "Chromatic Percussion",
    "Organ",
    "Guitar",
    "Bass",
    "Strings",
    "Ensemble",
    "Brass",
    "Reed",
    "Pipe",
    "Synth Lead",
    "Synth Pad",
    "Synth Effects",
    "Ethnic",
    "Percussive",
    "Sound Effects",
    "Vocal",
    "Unknown",
)

# Slakh's own words for the same families; two of them differ only in case, so read classes by program (FACTS 7.5)
_SLAKH_FAMILIES = (*CLASSES[:6], "Strings (continued)", *CLASSES[7:12], "Sound Effects", "Ethnic")


# Names in lower case, with spaces. Slakh writes "Sound Effects" for General MIDI's synth effects and "Sound effects"
# for its sound effects; a name alone does not say which, so it is taken at its word
_BY_NAME = {name.lower(): name for name in CLASSES} | {
    "strings (continued)": "Ensemble",
    # MUSDB18's and MoisesDB's parts (FACTS 8)
    "drums": "Percussive",
    "percussion": "Percussive",
    "vocals": "Vocal",
    "bowed strings": "Strings",
    # parts that hold instruments of several classes: brass beside flutes, organs beside synthesisers, and so on
    "wind": "Unknown",
    "other keys": "Unknown",
    "other plucked": "Unknown",
    "other": "Unknown",
}


def class_of_name(name: str) -> str:
    """The class, one of `CLASSES`, of a class's name, Slakh's `inst_class`, or a part of MUSDB18 or MoisesDB, in any
    case and with underscores or spaces. Any other name is "Unknown": nothing is guessed. Where a program is known, ask
    `class_of_program`."""
    return _BY_NAME.get(" ".join(name.lower().replace("_", " ").split()), "Unknown")


def class_of_program(program: int) -> str:
    """The class, one of `CLASSES`: eight programs a family; drums are "Percussive", out of range is "Unknown"."""
    if program == DRUMS:
        return "Percussive"
    return CLASSES[program // 8] if 0 <= program < 128 else "Unknown"


def slakh_class(program: int) -> str:
    """The string that Slakh2100 writes as `inst_class` for a program."""
    if program == DRUMS:
        return "Drums"
    if not 0 <= program < 128:
        return "Unknown"
    if program >= 112:
        # Slakh counts 119, the reverse cymbal, as an effect; General MIDI does not
        return "Percussive" if program < 119 else "Sound effects"
    return _SLAKH_FAMILIES[program // 8]
