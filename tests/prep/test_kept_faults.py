"""`prep verify` looks at kept audio as well: any bit that is turned is found, named and mended from the sources."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import shards
from prep.cli import main
from prep.kept_faults import KeptAudio, faults_of
from tests.prep.built import files, run
from tests.prep.made import save_small_codec, write_corpus
from tests.prep.test_kept import audio_files
from tests.prep.test_verify import flip


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["verify", *(str(word) for word in words), "--workers", "2"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run(write_corpus(folder / "corpus", train=1), folder / "out", save_small_codec(folder), keep_audio=True)
    return folder


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def tar(out: Path) -> Path:
    return next(out.glob("audio/*/test-000000.tar"))


def test_sound_audio_is_counted(out: Path) -> None:
    told = call(out)
    assert (
        told.exit_code == 0 and ", and 3 tars of kept audio, " in told.stdout and told.stdout.endswith(": no fault\n")
    )
    seen: list[int] = []
    kept = KeptAudio(out)
    assert list(kept.faults(2, seen.append)) == [] and len(kept.tars) == 3
    assert 0.9 * kept.bytes < sum(seen) <= kept.bytes


def test_a_flipped_bit_is_named_and_made_again(built: Path, out: Path, tar: Path) -> None:
    whole, audio = files(out), audio_files(out)
    member = json.loads(tar.with_suffix(".json").read_text())["members"][1]
    flip(tar, member["offset"] + member["size"] // 2)
    name = tar.relative_to(out).as_posix()
    told = call(out)
    assert told.exit_code == 1
    fault, summary, _ = told.stdout.splitlines()
    assert fault == f"{name}: {member['name']}: its audio is not what was kept"
    assert summary == "0 of 3 shards faulty, and 1 of 3 tars of kept audio"
    refused = call(out, "--repair")
    assert refused.exit_code == 1 and f"{name}: not re-made: it is made of the corpus: --root" in refused.stdout
    assert tar.exists()
    mended = call(out, "--repair", "--root", built / "corpus")
    assert mended.exit_code == 0 and f"{name}: re-made" in mended.stdout
    assert files(out) == whole and audio_files(out) == audio
    assert call(out).exit_code == 0


def test_no_bit_is_turned_unseen(tar: Path) -> None:
    """In the tar: its headers, audio, padding and end. In the receipt: anywhere."""
    assert list(faults_of(tar, tar.name)) == []
    draws = np.random.default_rng(0)
    for path in (tar, tar.with_suffix(".json")):
        data = path.read_bytes()
        places = draws.integers(len(data), size=60).tolist()
        if path == tar:
            member = json.loads(tar.with_suffix(".json").read_text())["members"][0]
            end = member["offset"] + member["size"]
            assert end % 512, "a padding there is"
            places += [0, 300, 511, end, end | 511, len(data) - 1]
        for place in places:
            turned = bytearray(data)
            turned[place] ^= 1 << int(draws.integers(8))
            path.write_bytes(turned)
            assert list(faults_of(tar, tar.name)), (path.suffix, place)
        path.write_bytes(data)
    assert list(faults_of(tar, tar.name)) == []


def _cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:5000])


def _twice(tar: Path) -> None:
    tar.write_bytes(2 * tar.read_bytes())


def _another(tar: Path) -> None:
    receipt = tar.with_suffix(".json")
    receipt.write_bytes(receipt.with_name("train-000000.json").read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tar: tar.unlink(), "the tar is missing"),
        (lambda tar: tar.with_suffix(".json").unlink(), "its receipt is missing"),
        (lambda tar: [tar.unlink(), tar.with_suffix(".json").unlink()], "is missing"),
        (lambda tar: tar.with_suffix(".json").write_bytes(b'{"format": 1}\n'), "its receipt is damaged"),
        (lambda tar: tar.with_suffix(".json").write_bytes(b"[]\n"), "its receipt is damaged"),
        (_cut, "the tar has 5000 bytes, its receipt says"),
        (_twice, "its receipt says"),
        (_another, "its audio is not what was kept"),
    ],
)
def test_coarser_damage(built: Path, out: Path, tar: Path, damage: Callable[[Path], object], message: str) -> None:
    audio = audio_files(out)
    damage(tar)
    told = call(out)
    name = tar.relative_to(out).as_posix()
    assert told.exit_code == 1 and told.stdout.startswith(f"{name}: ") and message in told.stdout
    assert call(out, "--repair", "--root", built / "corpus").exit_code == 0
    assert audio_files(out) == audio


def test_what_is_no_fault_is_noted(out: Path, tar: Path) -> None:
    (tar.parent / ".test-000000.tar.9.part").write_bytes(b"half")
    told = call(out)
    assert told.exit_code == 0 and f"note: audio/{tar.parent.name}/.test-000000.tar.9.part was left" in told.stdout
    shutil.rmtree(out / "audio")  # a copy of the latents alone
    told = call(out)
    assert told.exit_code == 0 and f"note: audio/{tar.parent.name}, kept for {shards.current(out)}, is not here" in (
        told.stdout
    )


def test_audio_that_the_live_generation_does_not_keep(built: Path, out: Path, tar: Path) -> None:
    codec = next(built.glob("small-*.safetensors"))
    run(built / "corpus", out, f"causal={codec}")
    flip(tar, -1)
    told = call(out, "--repair", "--root", built / "corpus")
    name = tar.relative_to(out).as_posix()
    assert told.exit_code == 1 and f"{name}: not kept for the live generation" in told.stdout and tar.exists()
