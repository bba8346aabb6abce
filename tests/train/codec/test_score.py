"""The weights that ship, on songs and with a SoundFont that they were not trained on."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner, Result

from prep.codecs import load_codec
from prep.compose import compose
from prep.render import render_corpus
from tests.prep.made import save_small_codec
from train.cli import main
from train.codec.corpora import read_corpus
from train.codec.score import LINEAR, Figures, score


@pytest.fixture(scope="module")
def held_out(fluidsynth: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of a seed, and the SoundFont, that training did not see."""
    folder = tmp_path_factory.mktemp("held")
    compose(folder / "midi", songs=3, seed=900)
    render_corpus(folder / "midi", folder / "corpus", channels=2, workers=1, progress=False)
    return folder / "corpus"


def test_neither_a_low_pass_nor_a_vocoder_would_pass(held_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.codec.opus.missing", lambda: "not asked here")
    table = score({"causal": load_codec()}, read_corpus(held_out, 44100, 4096, 15.0))
    ours, linear, vocoder = (table.rows[label] for label in ("causal", LINEAR, "vocoder, untrained"))
    assert isinstance(ours, Figures) and isinstance(linear, Figures) and isinstance(vocoder, Figures)
    gate = table.gate("causal")
    assert gate.ratio == ours.log_mel / linear.log_mel <= 0.55 and ours.si_sdr_db > 0
    # the yardsticks are some: one keeps more of the waveform, and less of the sound; the other neither pitch nor phase
    assert linear.si_sdr_db > ours.si_sdr_db and linear.log_mel > 0.3
    assert vocoder.si_sdr_db < -20 and vocoder.pitches < 0.3 < 0.5 < ours.pitches
    assert ours.onsets > 0.5 and table.own_bandwidth_hz >= ours.bandwidth_hz > 4000
    assert table.rows["Opus 12 kbit/s"] == "not asked here"
    assert table.latents["causal"].mean.shape == (128,)


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["codec-score", *map(str, arguments)])


def test_the_command_prints_writes_and_draws(held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.codec.opus.missing", lambda: "not asked here")
    card, picture = tmp_path / "card.md", tmp_path / "clips.png"
    card.write_text("<!-- figures -->\n<!-- end of figures -->\n")
    mix = sorted(held_out.glob("**/mix.flac"))[0]
    small = save_small_codec(tmp_path)
    done = command(
        "--data", held_out, "--data", mix, "--codec", small, "--seconds", 5, "--card", card, "--picture", picture
    )
    assert done.exit_code == 0, done.output
    assert "| small-0 on corpus |" in done.stdout and "**mix**: 1 mix\n" in done.stdout
    assert done.stdout in card.read_text()
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) > 300 and np.unique(pixels[..., 0]).size > 20


def test_what_cannot_be_compared_is_told(held_out: Path, tmp_path: Path) -> None:
    small = save_small_codec(tmp_path)
    done = command("--data", held_out, "--codec", "causal", "--codec", small)
    assert done.exit_code == 1 and "dim differ" in done.output
    done = command("--data", held_out, "--codec", small, "--codec", small)
    assert done.exit_code == 1 and "two of --codec would be called small-0" in done.output
