"""What `prep verify` finds in a built dataset, and what its repair brings back, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import shards
from prep.cli import main
from prep.config import Mixing
from prep.mixes import add_mixes
from tests.prep.built import files, run, work_here
from tests.prep.made import save_small_codec, tones, write_corpus, write_track
from tests.prep.test_mixes import streams


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["verify", *(str(word) for word in words), "--workers", "2"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`corpus`, and `out` that was built of it: a shard for each split."""
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus", train=3)
    codec = save_small_codec(folder)
    run(folder / "corpus", folder / "out", codec, mixing=Mixing(subsets_per_target=1))
    return folder


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built / "out", tmp_path / "out")
    return tmp_path / "out"


def live(out: Path) -> Path:
    return next((out / "generations").iterdir())


def tars(out: Path) -> list[Path]:
    return sorted(live(out).glob("*.tar"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def times(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in live(out).iterdir()}


def test_a_sound_dataset(out: Path) -> None:
    told = call(out)
    assert told.exit_code == 0 and told.stdout.endswith(" MB: no fault\n")
    assert told.stdout.startswith(f"{len(tars(out))} shards, ")
    assert call(live(out)).stdout == told.stdout
    assert call(out, "--repair").stdout == told.stdout


def test_a_flipped_bit_is_found_and_only_its_shard_is_made_again(built: Path, out: Path) -> None:
    whole, before, (tar, *_) = files(out), times(out), tars(out)
    flip(tar, tar.stat().st_size // 2)
    before[tar] = tar.stat().st_mtime_ns
    told = call(out)
    assert told.exit_code == 1
    fault, summary, mend = told.stdout.splitlines()
    assert fault.startswith(f"{tar.name}: track0000") and fault.endswith(" differs")
    assert summary == f"1 of {len(tars(out))} shards faulty" and f"prep verify {out} --repair" in mend
    assert files(out) != whole

    told = call(out, "--repair", "--root", built / "corpus")
    assert told.exit_code == 0 and f"{tar.name}: re-made, byte for byte" in told.stdout
    assert files(out) == whole
    assert {path for path, time in times(out).items() if time != before[path]} == {tar, tar.with_suffix(".json")}
    assert call(out).exit_code == 0


def _cut(folder: Path) -> None:
    tar = folder / "test-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])


def _swap_receipts(folder: Path) -> None:
    one, other = (folder / f"{split}-000000.json" for split in ("test", "validation"))
    one.write_bytes(other.read_bytes())


def _wrong_current(folder: Path) -> None:
    (folder.parent.parent / "current").write_text("nobody\n")


def _everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "dataset.json").write_text("{}")


SOURCELESS: dict[str, tuple[Callable[[Path], object], str]] = {
    "receipt gone": (lambda folder: (folder / "test-000000.json").unlink(), "test-000000.tar: its receipt is missing"),
    "receipt of another": (_swap_receipts, "test-000000.tar: its receipt is the receipt of validation-000000.tar"),
    "receipt damaged": (lambda folder: flip(folder / "test-000000.json", 300), "test-000000.tar: its receipt "),
    "index damaged": (lambda folder: flip(folder / "dataset.json", 3), "dataset.json: "),
    "wrong current": (_wrong_current, "current: names nobody, which is not there"),
    "no current": (lambda folder: (folder.parent.parent / "current").unlink(), "current: has no live generation"),
}


@pytest.mark.parametrize("fault", SOURCELESS)
def test_what_needs_no_sources_is_mended_without_them(out: Path, fault: str) -> None:
    damage, line = SOURCELESS[fault]
    whole, current = files(out), shards.current(out)
    damage(live(out))
    found = call(out)
    assert found.exit_code == 1 and line in found.stdout.splitlines()[0]
    mended = call(out, "--repair")
    assert mended.exit_code == 0, mended.output
    assert files(out) == whole and shards.current(out) == current
    assert call(out).exit_code == 0


@pytest.mark.parametrize("damage", [lambda folder: (folder / "test-000000.tar").unlink(), _cut])
def test_what_needs_the_sources_says_so(built: Path, out: Path, damage: Callable[[Path], object]) -> None:
    whole = files(out)
    damage(live(out))
    left = files(out)
    told = call(out, "--repair")
    assert told.exit_code == 1 and "test-000000.tar: not re-made: " in told.stdout and "--root" in told.stdout
    assert told.stdout.endswith("1 left as they are: test-000000.tar\n") and files(out) == left
    assert call(out, "--repair", "--root", built / "corpus").exit_code == 0
    assert files(out) == whole


def test_several_faults_at_once(built: Path, out: Path) -> None:
    whole, before = files(out), times(out)
    damaged = tars(out)[:3]
    flip(damaged[0], -20000)
    damaged[1].unlink()
    damaged[2].with_suffix(".json").unlink()
    flip(live(out) / "dataset.json", -3)
    told = call(out, "--repair", "--root", built / "corpus")
    assert told.exit_code == 0, told.output
    assert files(out) == whole
    assert {path.stem for path, time in times(out).items() if time != before[path]} == {
        "dataset",
        *(tar.stem for tar in damaged),
    }


def test_a_source_that_changed_is_named_and_the_others_are_made_again(built: Path, out: Path, tmp_path: Path) -> None:
    whole = files(out)
    test, validation = live(out) / "test-000000.tar", live(out) / "validation-000000.tar"
    flip(test, 3000)
    flip(validation, 3000)
    damaged = test.read_bytes()
    root = tmp_path / "corpus"
    shutil.copytree(built / "corpus", root)
    track = next((root / "test").iterdir())
    shutil.rmtree(track)
    write_track(track, tones(40, stems=4))
    told = call(out, "--repair", "--root", root)
    assert told.exit_code == 1 and "S00.flac has changed since it was scanned" in told.stdout
    assert told.stdout.endswith("1 left as they are: test-000000.tar\n")
    assert test.read_bytes() == damaged
    assert validation.read_bytes() == whole[validation.relative_to(out).as_posix()]


def test_streams_come_from_other_generations_and_never_from_the_faulty_tar(built: Path, out: Path) -> None:
    add_mixes(out, built / "corpus", 2, workers=1, progress=False)
    folder = out / "generations" / shards.current(out)
    whole, values = files(out), streams(out)
    tar = folder / "test-000000.tar"
    flip(tar, tar.stat().st_size // 2)
    (out / "generations" / "begun").mkdir()
    told = call(out, "--repair", "--root", built / "corpus")
    assert told.exit_code == 0 and "note: generations/begun is not complete" in told.stdout
    assert files(out) == whole and streams(out) == values

    old = next(path for path in (out / "generations").iterdir() if path.name not in (folder.name, "begun"))
    flip(old / "test-000000.tar", 3000)
    flip(tar, tar.stat().st_size // 2)
    told = call(out, "--repair", "--root", built / "corpus")
    assert f"generations/{old.name}/test-000000.tar: " in told.stdout and "not live, so not re-made" in told.stdout
    assert told.exit_code == 1 and tar.read_bytes() == whole[tar.relative_to(out).as_posix()]


def test_other_bytes_are_told_and_listed_anew(built: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose sums round differently."""
    before, (tar, *_) = times(out), tars(out)
    flip(tar, 3000)
    from prep import draft as module

    made = module.build_examples

    def rounds_otherwise(*words: object, **others: object) -> object:
        examples = made(*words, **others)  # type: ignore[arg-type]
        for each in examples:
            each.example.stems[0, 0, 0] += 1
        return examples

    work_here(monkeypatch)
    monkeypatch.setattr(module, "build_examples", rounds_otherwise)
    told = CliRunner().invoke(main, ["verify", str(out), "--repair", "--root", str(built / "corpus"), "--workers", "1"])
    assert told.exit_code == 0, told.output
    assert f"{tar.name}: re-made, but not with the same bytes" in told.stdout
    assert "dataset.json: written anew, to list the re-made receipts" in told.stdout
    changed = {path.name for path, time in times(out).items() if time != before[path]}
    assert changed == {tar.name, f"{tar.stem}.json", "dataset.json"}
    assert call(out).exit_code == 0 and len(shards.open(out)) == 5


def test_of_another_library_release_the_receipt_is_the_listed_one(
    built: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, (tar, *_) = files(out), tars(out)
    flip(tar, 3000)
    monkeypatch.setattr("prep.repair.fingerprint", lambda: {"machine": "another"})
    assert call(out, "--repair", "--root", built / "corpus").exit_code == 0
    assert files(out) == whole


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (lambda out: (out / "plan.parquet").write_bytes(b"PAR1"), ("--repair",), "Run the same `prep build` again"),
        (lambda out: (out / "current").rename(out / "x"), ("--root", "/nowhere"), "--root /nowhere is not a folder"),
        (lambda out: _everything(live(out)), ("--repair",), "the corpus that the dataset was built from: --root"),
        (lambda out: shutil.rmtree(out / "generations"), ("--repair",), "is not a whole dataset"),
        (lambda out: shutil.rmtree(out), (), "is not a folder; give the --out of a `prep build`"),
        (lambda out: [path.unlink() for path in out.rglob("*") if path.is_file()], (), "`prep build` again"),
    ],
)
def test_what_cannot_be_tried(
    out: Path, damage: Callable[[Path], object], words: tuple[str, ...], message: str
) -> None:
    damage(out)
    told = call(out, *words)
    assert told.exit_code == 1 and message in told.output and "Traceback" not in told.output


def test_a_damaged_table_is_a_fault(out: Path) -> None:
    (out / "ledger.parquet").write_bytes(b"PAR1 and no more")
    told = call(out)
    assert told.exit_code == 1
    assert told.stdout.splitlines()[0] == "ledger.parquet: cannot be read; run the same `prep build` again"
    assert told.stdout.splitlines()[1].endswith(" shards faulty, and ledger.parquet")
