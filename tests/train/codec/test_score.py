"""The weights that ship, on songs and with a SoundFont that they were not trained on."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from prep.codecs import load_codec
from prep.compose import compose
from prep.render import render_corpus
from train.cli import main
from train.codec.score import score


@pytest.fixture(scope="module")
def held_out(fluidsynth: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of a seed, and the SoundFont, that training did not see."""
    folder = tmp_path_factory.mktemp("held")
    compose(folder / "midi", songs=3, seed=900)
    render_corpus(folder / "midi", folder / "corpus", channels=2, workers=1, progress=False)
    return folder / "corpus"


def test_neither_a_low_pass_nor_a_vocoder_would_pass(held_out: Path) -> None:
    figures = score(load_codec(), held_out, seconds=30)
    assert figures.mixes == 3
    assert figures.ratio <= 0.55, figures
    assert figures.si_sdr_db > 0, figures
    # the yardstick is one: it keeps more of the waveform, and less of the sound
    assert figures.si_sdr_linear_db > figures.si_sdr_db and figures.log_mel_linear > 0.3


def test_the_command_prints_both(held_out: Path) -> None:
    done = CliRunner().invoke(main, ["codec-score", "--data", str(held_out), "--seconds", "5"])
    assert done.exit_code == 0, done.output
    assert "log-mel distance" in done.output and "SI-SDR dB" in done.output and "best linear" in done.output
