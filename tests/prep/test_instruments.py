import pytest

from prep.instruments import CLASSES, DRUMS, class_of_program, slakh_class


def test_the_eighteen_classes_are_distinct() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 18


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (0, "Piano"),
        (7, "Piano"),
        (8, "Chromatic Percussion"),
        (22, "Organ"),
        (30, "Guitar"),
        (38, "Bass"),
        (46, "Strings"),
        (52, "Ensemble"),
        (61, "Brass"),
        (64, "Reed"),
        (79, "Pipe"),
        (80, "Synth Lead"),
        (95, "Synth Pad"),
        (96, "Synth Effects"),
        (104, "Ethnic"),
        (112, "Percussive"),
        (119, "Percussive"),
        (120, "Sound Effects"),
        (DRUMS, "Percussive"),
        (-1, "Unknown"),
        (129, "Unknown"),
    ],
)
def test_class_of_program(program: int, expected: str) -> None:
    assert class_of_program(program) == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (30, "Guitar"),
        (1, "Piano"),
        (33, "Bass"),
        (52, "Strings (continued)"),
        (103, "Sound Effects"),
        (17, "Organ"),
        (118, "Percussive"),
        (119, "Sound effects"),
        (127, "Sound effects"),
        (DRUMS, "Drums"),
        (-1, "Unknown"),
    ],
)
def test_slakh_class_is_slakhs_string(program: int, expected: str) -> None:
    assert slakh_class(program) == expected


def test_every_program_has_a_class_and_every_family_eight() -> None:
    classes = [class_of_program(program) for program in range(128)]
    assert all(classes.count(name) == 8 for name in CLASSES[:16])
