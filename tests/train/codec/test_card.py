"""The figures' Markdown and their place in the card."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.prep.made import small_codec
from train.codec.card import markdown, write_card
from train.codec.corpora import Clip, Corpus
from train.codec.latents import statistics
from train.codec.score import Figures, Table
from train.errors import TrainError


def figures(log_mel: float, si_sdr_db: float, onsets: float = 0.9) -> Figures:
    return Figures(log_mel, 1.5, si_sdr_db, 4.0, onsets, 0.1, onsets, 16000.0, 2.0, 0.05)


def table(label: str, soundfont: str, ours: Figures) -> Table:
    corpus = Corpus(label, soundfont, [Clip("a", torch.zeros(2, 4096), None)])
    rows: dict[str, Figures | str] = {"causal": ours, "best linear": figures(0.5, 7.0), "Opus": "no ffmpeg here"}
    return Table(corpus, rows, 18000.0, {"causal": statistics(torch.randn(50, 3))})


@pytest.mark.parametrize(
    ("soundfont", "log_mel", "si_sdr_db", "verdict"),
    [
        ("TimGM6mb.sf2", 0.225, 2.0, True),
        ("TimGM6mb.sf2", 0.226, 2.0, False),
        ("TimGM6mb.sf2", 0.225, 1.9, False),
        ("FluidR3_GM.sf2", 0.225, 0.0, True),
        ("FluidR3_GM.sf2", 0.225, -0.1, False),
        ("", 0.9, -9.0, None),
    ],
)
def test_gates_need_both(soundfont: str, log_mel: float, si_sdr_db: float, verdict: bool | None) -> None:
    assert table("a", soundfont, figures(log_mel, si_sdr_db)).gate("causal").met is verdict


def test_the_tables_say_what_was_measured() -> None:
    tables = [
        table("held", "TimGM6mb.sf2", figures(0.2, 3.0)),
        table("dense", "FluidR3_GM.sf2", figures(0.2, -1.0)),
        table("clip", "", figures(0.2, 3.0, math.nan)),
    ]
    lines = markdown(tables, {"causal": small_codec()}, 20.0).splitlines()
    assert "| held | 0.400 | 3.0, ≥ 2 | met |" in lines
    assert "| dense | 0.400 | -1.0, ≥ 0 | **missed** |" in lines
    assert "| clip | 0.400 | 3.0 | no gate |" in lines
    assert "| causal | 0.200 | 1.50 | 3.0 | 4.0 | 90% (10%) | 90% | 16.0 | 2.0 | 0.05 |" in lines
    assert "| causal | 0.200 | 1.50 | 3.0 | 4.0 | n/a | n/a | 16.0 | 2.0 | 0.05 |" in lines
    assert lines.count("**held**: 1 mix, TimGM6mb.sf2") == 1
    bars = {line.count("|") for line in lines if line.startswith(("| causal |", "| Opus", "| the original"))}
    assert bars == {11}
    assert sum(line.startswith("| causal on ") for line in lines) == 3


def test_the_card_keeps_its_text(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("Above.\n\n<!-- figures -->\nold\n<!-- end of figures -->\n\nBelow.\n")
    for new in ("first\n", "second\n"):
        write_card(card, new)
    assert card.read_text() == "Above.\n\n<!-- figures -->\n\nsecond\n\n<!-- end of figures -->\n\nBelow.\n"
    for text in ("no marks", "<!-- end of figures --> <!-- figures -->", "<!-- figures -->"):
        card.write_text(text)
        with pytest.raises(TrainError, match=r"has no line <!-- figures -->"):
            write_card(card, "new")
        assert card.read_text() == text
    with pytest.raises(TrainError):
        write_card(tmp_path / "none.md", "new")
