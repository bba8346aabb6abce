import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import prep.codecs
from tests.train.made import RATE, LinearCodec, example, settings, small, songs, write
from tests.train.test_device import Fake
from tests.train.test_live import tune
from train.cli import main


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run on the made codec, which load_codec gives whatever it is asked for."""
    monkeypatch.setattr(prep.codecs, "load_codec", lambda spec: LinearCodec())
    result = train("fit", settings(tmp_path, small()), "--data", songs(tmp_path / "out"), "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def mix(tmp: Path, seconds: float = 1.0) -> Path:
    path = tmp / "mix.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, (int(seconds * RATE), 2)), RATE)
    return path


def test_fit_then_play_leaves_a_wav_as_long_as_the_mix(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    result = train("play", run, "--mix", mix(tmp_path), "--instrument", "Bass", "--out", out)
    assert result.exit_code == 0, result.output
    assert soundfile.info(out).frames == RATE
    assert "real-time factor" in result.output and result.output.endswith(f"{out}\n")


def test_fit_again_goes_on_and_says_when_it_is_finished(run: Path, tmp_path: Path) -> None:
    again = ("fit", settings(tmp_path, small()), "--data", tmp_path / "out", "--run", run)
    assert "is finished: 4 steps" in train(*again).output
    result = train(*again, "--set", "loop.steps=5")
    assert "going on from step 4" in result.output and result.exit_code == 0


def test_evaluate_prints_the_table_and_says_which_split_is_missing(run: Path, tmp_path: Path) -> None:
    songs = [example(f"v{n}", members=((0, 1), (1, 2), (0, 2)), split="validation") for n in range(2)]
    result = train("evaluate", run, "--data", write(tmp_path / "held", songs), "--seconds", 2, "--pairs", 4)
    assert result.exit_code == 0, result.output
    first, *table = result.output.splitlines()
    assert first == f"{run} after 4 steps, on the validation split, 2 s a pair"
    assert len(table) == 8 and table[3].startswith("played to its mix")
    missing = train("evaluate", run, "--data", tmp_path / "out", "--seconds", 2)
    assert "the dataset has no validation split (it has train)" in one_line(missing)


def one_line(result: Result) -> str:
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    return result.output


def test_what_fit_is_told_wrong_is_one_line(run: Path, tmp_path: Path) -> None:
    config = settings(tmp_path, small())
    data = tmp_path / "out"
    assert "none.yaml is not a file" in one_line(train("fit", "none.yaml", "--data", data, "--run", run))
    wrong = train("fit", config, "--data", data, "--run", run, "--set", "loop.step=3")
    assert "loop.step is not a setting; did you mean loop.steps?" in one_line(wrong)
    assert "missing is not a folder" in one_line(train("fit", config, "--data", tmp_path / "missing", "--run", run))
    other = train("fit", config, "--data", data, "--run", run, "--set", "seed=9")
    assert "run of another config: seed is 0 there and 9 here" in one_line(other)


def test_what_play_is_told_wrong_is_one_line(run: Path, tmp_path: Path) -> None:
    end = ("--mix", mix(tmp_path), "--out", tmp_path / "out.wav", "--instrument")
    assert "has no checkpoint.pt" in one_line(train("play", tmp_path, *end, "Bass"))
    assert "did you mean Piano?" in one_line(train("play", run, *end, "Pianno"))
    missing = train("play", run, "--mix", "none.wav", "--out", "out.wav", "--instrument", "Bass")
    assert "none.wav is not a file" in one_line(missing)
    soundfile.write(tmp_path / "mix.wav", np.zeros((0, 2)), RATE)
    assert "the mix is empty" in one_line(train("play", run, *end, "Bass"))
    soundfile.write(tmp_path / "mix.wav", np.full((9, 2), np.nan), RATE, subtype="FLOAT")
    assert "18 samples of NaN or infinity" in one_line(train("play", run, *end, "Bass"))
    assert not (tmp_path / "out.wav").exists()


def test_play_live_ends_with_a_report(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Fake(tune(20)))
    result = train("play", run, "--live", "--instrument", "bass", "--input-lufs", -30, "--budget-ms", 40)
    assert result.exit_code == 0, result.output
    assert "heard +12.0 dB louder" in result.output and "40 ms to find it" in result.output
    assert "underruns: " in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mix", "in.wav"], "Give --out, or --live to play with an audio device."),
        (["--live", "--out", "out.wav"], "--out does not go with --live."),
        (["--mix", "in.wav", "--out", "out.wav", "--budget-ms", "9"], "--budget-ms goes with --live."),
        (["--live", "--seed", "-1"], "-1 is not in the range 0<=x<=2147483647."),
        (["--live", "--calibrate", "5", "--input-lufs", "-20"], "--calibrate measures what --input-lufs says"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: list[str], message: str) -> None:
    result = train("play", "run", "--instrument", "Bass", *options)
    assert result.exit_code == 2 and message in result.output


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "run", "--data", "out", "--seconds"),
        ("codec-score", "out", "--seconds"),
        ("play", "run", "--live", "--instrument", "Bass", "--budget-ms"),
    ],
)
def test_what_is_not_finite_is_told(command: tuple[str, ...], number: str) -> None:
    told = train(*command, number)
    assert told.exit_code == 2 and ("is not finite." in told.output or "not in the range" in told.output)


def test_a_codec_that_cannot_be_had_is_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    end = ("--mix", mix(tmp_path), "--out", tmp_path / "out.wav", "--instrument", "Bass", "--codec", "other")
    assert "codec 'other' is unknown" in one_line(train("play", run, *end))


def test_help_names_the_commands() -> None:
    output = train("--help").output
    assert "fit " in output and "play " in output
