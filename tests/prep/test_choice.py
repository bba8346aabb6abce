"""What of a multitrack is used, and what is said of the rest."""

import numpy as np
import pytest

from prep.choice import Choice, choose
from prep.config import Activity, Audio, Instruments, PrepConfig
from prep.scan import ScanRow
from tests.prep.test_plan import row

SECONDS = 40


def part(stem: str, *spans: tuple[float, float], instrument: str = "Bass", **changes: object) -> ScanRow:
    """A stem that sounds in these seconds only."""
    levels = np.full(SECONDS * 50, -120.0, np.float16)
    for start, stop in spans:
        levels[round(start * 50) : round(stop * 50)] = -20.0
    samples = SECONDS * 44100
    return row(stem=stem, levels=levels.tobytes(), instrument=instrument, samples=samples, **changes)


def chosen(rows: list[ScanRow], **settings: object) -> tuple[Choice | None, dict[str, tuple[str, str]]]:
    verdicts: dict[str, tuple[str, str]] = {}
    return choose(rows, PrepConfig(**settings), verdicts), verdicts  # type: ignore[arg-type]


def test_a_target_sounds_together_with_another_in_half_of_a_window() -> None:
    rows = [part("S00", (0, 40)), part("S01", (10, 15)), part("S02", (20, 24.8))]
    choice, verdicts = chosen(rows)
    assert choice and choice.targets == (0, 1) and choice.contexts == (0, 1, 2)
    assert verdicts[rows[2].path] == ("", "never a target: no window in which it sounds together with another")
    shorter, _ = chosen(rows, activity=Activity(window_s=9.5))
    assert shorter and shorter.targets == (0, 1, 2)


def test_what_never_sounds_together_is_no_pair() -> None:
    apart = [part("S00", (0, 10)), part("S01", (30, 40))]
    choice, verdicts = chosen(apart)
    assert choice is None and {reason for reason, _ in verdicts.values()} == {"no_valid_window"}
    assert "10 s (activity.window_s)" in verdicts[apart[0].path][1]


def test_a_mix_is_heard_if_one_target_sounds_with_it() -> None:
    choice, _ = chosen([part("S00", (0, 20)), part("S01", (0, 12)), part("S02", (30, 40)), part("S03", (28, 40))])
    assert choice and choice.targets == (0, 1, 2, 3)
    assert choice.heard_with_a_target([0]) and choice.heard_with_a_target([0, 2])
    assert not choice.heard_with_a_target([0, 1]) and not choice.heard_with_a_target([0, 1, 2, 3])


def test_classes_that_are_not_allowed_are_left_out() -> None:
    rows = [part("S00", (0, 40)), part("S01", (0, 40), instrument="Organ"), part("S02", (0, 40), instrument="Reed")]
    choice, verdicts = chosen(rows, instruments=Instruments(allowed=["Bass", "Reed"]))
    assert choice and [stem.name for stem in choice.stems] == ["S00", "S02"]
    assert verdicts[rows[1].path] == ("class_not_allowed", "Organ is not in instruments.allowed")


def test_a_class_that_is_no_context_is_a_target_only() -> None:
    rows = [part("S00", (0, 40)), part("S01", (0, 40), instrument="Organ"), part("S02", (0, 40), instrument="Vocal")]
    choice, _ = chosen(rows, instruments=Instruments(exclude_contexts=["Organ"]))
    assert choice and (choice.targets, choice.contexts) == ((0, 1), (0, 2))
    nobody, verdicts = chosen(rows[:2], instruments=Instruments(exclude_contexts=["Organ", "Bass"]))
    assert nobody is None and {reason for reason, _ in verdicts.values()} == {"no_context"}


def test_stems_of_one_class_are_one_stem() -> None:
    rows = [
        part("S00", (0, 20), instrument="Guitar"),
        part("S01", (0, 40), instrument="Bass"),
        part("S02", (20, 40), instrument="Guitar", loudness_lufs=-30.0),
        part("S03", (0, 40), instrument="Unknown"),
        part("S04", (0, 40), instrument="Unknown"),
    ]
    choice, verdicts = chosen(rows, instruments=Instruments(group_by="class"))
    assert choice and [stem.name for stem in choice.stems] == ["Guitar", "Bass", "Unknown S03", "Unknown S04"]
    assert [r.stem for r in choice.stems[0].rows] == ["S00", "S02"]
    assert choice.sounding[0].all() and all(reason == "" for reason, _ in verdicts.values())
    assert choice.stems[0].lufs == pytest.approx(-20 + 10 * np.log10(1.1), abs=1e-6)
    # two halves, each too short alone, are one guitar
    short = [part("S00", (0, 4), instrument="Guitar"), part("S01", (0, 40)), part("S02", (5, 9), instrument="Guitar")]
    longer = Activity(min_active_s=5.0)
    alone, _ = chosen(short, activity=longer)
    together, _ = chosen(short, activity=longer, instruments=Instruments(group_by="class"))
    assert alone is None and together is not None


def test_unequal_lengths_are_padded_or_trimmed() -> None:
    long, short = part("S00", (0, 40)), part("S01", (0, 30))
    short = ScanRow(**{**vars(short), "samples": 30 * 44100, "levels": short.levels[: 30 * 50 * 2]})
    padded, verdicts = chosen([long, short])
    assert padded and padded.samples == 40 * 44100 and padded.sounding.shape == (2, 2000)
    assert not padded.sounding[1, 1500:].any()
    assert verdicts[short.path] == ("", "padded from 1323000 to 1764000 samples")
    trimmed, verdicts = chosen([long, short], audio=Audio(unequal="trim"))
    assert trimmed and trimmed.samples == 30 * 44100 and trimmed.sounding.shape == (2, 1500)
    assert verdicts[long.path] == ("", "trimmed from 1764000 to 1323000 samples")


def test_silence_does_not_trim_the_others() -> None:
    sound, nothing = part("S00", (0, 40)), part("S02")
    nothing = ScanRow(**{**vars(nothing), "samples": 1, "levels": b"", "loudness_lufs": -120.0})
    choice, verdicts = chosen([sound, part("S01", (0, 40)), nothing], audio=Audio(unequal="trim"))
    assert choice and choice.samples == 40 * 44100 and verdicts[nothing.path][0] == "silent"


def test_a_stem_that_sounds_only_where_it_is_trimmed_is_silent() -> None:
    short = part("S01", (0, 20))
    short = ScanRow(**{**vars(short), "samples": 20 * 44100, "levels": short.levels[: 20 * 50 * 2]})
    late = part("S02", (25, 40))
    choice, verdicts = chosen([part("S00", (0, 40)), short, late], audio=Audio(unequal="trim"))
    assert choice and [stem.name for stem in choice.stems] == ["S00", "S01"]
    assert verdicts[late.path] == ("silent", "sounds for less than 1 s over -60 dB before it is trimmed")
    padded, _ = chosen([part("S00", (0, 40)), short, late])
    assert padded and len(padded.stems) == 3


def test_no_gain_makes_silence_sound() -> None:
    quiet = part("S00", (0, 1.2), loudness_lufs=-75.0)
    choice, verdicts = chosen(
        [quiet, part("S01", (0, 40)), part("S02", (0, 40))], activity=Activity(threshold_db=-100.0)
    )
    assert choice and not choice.sounding[0, 100:].any() and verdicts[quiet.path][1].startswith("never a target")
