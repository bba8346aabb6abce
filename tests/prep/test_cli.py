"""The command line: what a user types, and what a user meets who types it wrong."""

from pathlib import Path

import pytest
import soundfile as sf
from click.testing import CliRunner, Result

import shards
from prep.cli import main
from tests.prep.made import save_small_codec, write_corpus


def call(*words: object, **env: str) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env=env)


@pytest.fixture
def codec(tmp_path: Path) -> str:
    return f"codec={save_small_codec(tmp_path)}"


def test_build_and_hear(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    words = ("build", "--dataset", "slakh", "--root", root, "--out", out, "--set", codec, "--workers", 1)
    first, second = call(*words), call(*words)
    assert first.exit_code == second.exit_code == 0
    assert "inputs 11 = 11 used + 0 filtered + 0 quarantined" in first.output
    assert "stem-seconds a second" in first.output and "nothing to do" in second.output

    heard = call("excerpt", out, tmp_path / "listen", "--root", root, "--instrument", "Bass")
    assert heard.exit_code == 0 and "track00003: target S00 (Bass)" in heard.output
    wavs = [tmp_path / "listen" / f"{name}.wav" for name in ("mix", "target", "target-decoded")]
    assert {sf.info(path).frames for path in wavs} == {3 * 44100}
    drawn = call("picture", *wavs, "--out", tmp_path / "a.png", "--length", 3)
    assert drawn.exit_code == 0 and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

    for words, message in (
        (("excerpt", out, tmp_path / "x", "--root", root, "--instrument", "Banjo"), "'Banjo' is no class"),
        (
            ("excerpt", out, tmp_path / "x", "--root", root, "--instrument", "Brass"),
            "no example of test has a Brass",
        ),
        (("excerpt", out, tmp_path / "x", "--root", root, "--split", "dev"), "has no dev split; it has: train"),
        (("excerpt", out, tmp_path / "x", "--root", tmp_path), "--root"),
        (("picture", tmp_path / "none.wav", "--out", tmp_path / "b.png"), "none.wav: missing_audio"),
        (("picture", wavs[0], "--out", tmp_path / "b.png", "--start", 100), "is shorter than"),
        (("picture", wavs[0], "--out", tmp_path / "b.txt"), "must end in .png"),
        (("picture", wavs[0], "--out", tmp_path / "none" / "b.png"), "No such file or directory"),
    ):
        told = call(*words)
        assert told.exit_code == 1 and message in told.output and told.output.count("\n") == 1


@pytest.mark.parametrize("words", [("--start", "nan"), ("--length", "inf")])
def test_what_is_not_finite_is_told(words: tuple[str, str]) -> None:
    told = call("picture", "a.wav", "--out", "b.png", *words)
    assert told.exit_code == 2 and f"{words[1]} is not finite." in told.output


def test_an_excerpt_of_another_plan_is_refused(tmp_path: Path, codec: str) -> None:
    """A build that was begun and not finished leaves its plan beside the old generation."""
    root, out = write_corpus(tmp_path / "corpus", train=2), tmp_path / "out"
    words = ("build", "--dataset", "slakh", "--root", root, "--set", codec, "--workers", 1)
    assert call(*words, "--out", out).exit_code == 0
    assert call(*words, "--out", tmp_path / "other", "--limit", 2).exit_code == 0
    (tmp_path / "other" / "plan.parquet").replace(out / "plan.parquet")
    told = call("excerpt", out, tmp_path / "listen", "--root", root, "--split", "validation", "--instrument", "Piano")
    assert told.exit_code == 1 and "later, unfinished build without track00003" in told.output


def test_defaults_come_from_the_environment(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "music" / "slakh", train=2)
    monkeypatch.chdir(tmp_path)
    done = call("build", "--dataset", "slakh", "--set", codec, "--limit", 2, GREENROOM_DATA=str(tmp_path / "music"))
    assert done.exit_code == 0 and "--limit 2: the first 2 of 4 multitracks" in done.output
    assert len(shards.open(tmp_path / "out" / "slakh")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "slahk", "--root", "{tmp}"), "--dataset slahk is unknown; there is: slakh. Did you mean slakh?"),
        (("--dataset", "slakh"), "--root is not given and $GREENROOM_DATA is not set"),
        (("--dataset", "slakh", "--root", "{tmp}/none"), "none"),
        (("--dataset", "slakh", "--root", "{tmp}/empty"), "--root"),
        (("--dataset", "slakh", "--root", "{tmp}/photos"), "--root"),
        (("--dataset", "slakh", "--root", "{tmp}", "--set", "mixing.size_lav=all"), "Did you mean size_law?"),
        (("--dataset", "slakh", "--root", "{tmp}", "--config", "{tmp}/none.yaml"), "none.yaml is not a file"),
        (("--dataset", "slakh", "--root", "{tmp}/corpus", "--set", "codec=vorbis"), "codec 'vorbis' is unknown"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "beach.jpg").write_bytes(b"")
    write_corpus(tmp_path / "corpus", train=1)
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    told = call("build", *given, "--out", tmp_path / "out", GREENROOM_DATA="")
    assert told.exit_code == 1 and message in told.output and told.output.count("\n") == 1, told.output


def test_render_without_songs_fails(tmp_path: Path) -> None:
    told = call("render", tmp_path / "none", tmp_path / "out")
    assert told.exit_code == 1 and "none" in told.output and told.output.count("\n") == 1


def test_compose(tmp_path: Path) -> None:
    done = call("compose", tmp_path / "midi", "--songs", 2, "--seed", 3)
    assert done.exit_code == 0 and len(list((tmp_path / "midi").glob("*.mid"))) == 2
