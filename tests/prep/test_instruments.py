import pytest

from prep.instruments import CLASSES, DRUMS, class_of_name, class_of_program, slakh_class


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


@pytest.mark.parametrize("name", CLASSES)
def test_a_classs_own_name_is_that_class(name: str) -> None:
    assert class_of_name(name) == class_of_name(name.upper()) == class_of_name(name.replace(" ", "_").lower()) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vocals", "Vocal"),
        ("bass", "Bass"),
        ("drums", "Percussive"),
        ("guitar", "Guitar"),
        ("piano", "Piano"),
        ("percussion", "Percussive"),
        ("bowed_strings", "Strings"),
        (" Bowed  Strings ", "Strings"),
        # several classes in one part
        ("wind", "Unknown"),
        ("other_keys", "Unknown"),
        ("other_plucked", "Unknown"),
        ("other", "Unknown"),
        # near is not enough
        ("electric guitar", "Unknown"),
        ("basso", "Unknown"),
        ("", "Unknown"),
    ],
)
def test_class_of_a_parts_name(name: str, expected: str) -> None:
    assert class_of_name(name) == expected


def test_slakhs_names_agree_with_their_programs() -> None:
    """But for its "Sound Effects", which are General MIDI's synth effects, and 119, which it counts as an effect."""
    differing = {p for p in range(-1, DRUMS + 1) if class_of_name(slakh_class(p)) != class_of_program(p)}
    assert differing == {*range(96, 104), 119}
