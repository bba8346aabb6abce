"""Instrument classes from General MIDI programs.

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
