"""All of a dataset: its generations, their lists, receipts and tars; and nothing but ShardError ever raised."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from shards import ShardError
from shards.index import seal, unseal
from shards.verify import Verification, verify
from tests.shards.made import HEADER, dataset, example


@pytest.fixture
def out(tmp_path: Path) -> Path:
    dataset(tmp_path / "out")
    shards.write_shard(_folder(tmp_path / "out") / "train-000002.tar", [], {})
    return tmp_path / "out"


def _folder(out: Path) -> Path:
    return out / "generations" / HEADER["generation"]


def lines(path: Path) -> list[str]:
    return [str(fault) for fault in verify(path, 2)]


def test_a_sound_dataset(out: Path) -> None:
    seen: list[int] = []
    checked = Verification(out)
    assert list(checked.faults(3, seen.append)) == []
    assert (checked.shards, checked.notes) == (3, [])
    assert sum(seen) == checked.bytes == sum(path.stat().st_size for path in _folder(out).glob("*.tar"))
    assert lines(_folder(out)) == [] and list(verify(str(out))) == []


def test_faults_come_in_the_order_of_the_shards(out: Path) -> None:
    for tar in _folder(out).glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:-20] + b"x" * 20)
    wanted = ["train-000000.tar", "train-000001.tar", "test-000000.tar"]
    for workers in (1, 2, 8):
        assert [fault.shard for fault in verify(out, workers)] == wanted


def _receipt(out: Path, change: Callable[[bytes], bytes]) -> None:
    path = _folder(out) / "train-000000.json"
    path.write_bytes(change(path.read_bytes()))


def _another_receipt(out: Path) -> None:
    _receipt(out, lambda _: (_folder(out) / "train-000001.json").read_bytes())


def _index(out: Path, change: Callable[[bytes], bytes]) -> None:
    path = _folder(out) / "dataset.json"
    path.write_bytes(change(path.read_bytes()))


def _sealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A dataset.json that is sound in itself and says something else."""
    path = folder / "dataset.json"
    index = unseal(path.read_bytes(), "")
    change(index)
    path.write_bytes(seal(index))


def _first(out: Path, key: str, value: object) -> None:
    _sealed(_folder(out), lambda index: index["splits"]["train"]["shards"][0].update({key: value}))


_OTHER = "its receipt is not the one that dataset.json lists"
_CUT = "its receipt is not a whole JSON object (cut short or damaged)"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda out: (_folder(out) / "train-000001.tar").unlink(), "train-000001.tar: the tar is missing"),
        (lambda out: (_folder(out) / "test-000000.json").unlink(), "test-000000.tar: its receipt is missing"),
        (lambda out: _receipt(out, lambda data: data[:-5]), f"train-000000.tar: {_CUT}"),
        (lambda out: _receipt(out, lambda data: data.replace(b'"made"', b'"fake"')), f"train-000000.tar: {_OTHER}"),
        (lambda out: _another_receipt(out), "train-000000.tar: its receipt is the receipt of train-000001.tar"),
        (lambda out: (_folder(out) / "train-000002.json").write_text("[]"), f"train-000002.tar: {_CUT}"),
        (lambda out: _index(out, lambda data: data[:90]), "dataset.json: is not a whole JSON object"),
        (lambda out: _index(out, lambda data: data + b" "), "dataset.json: is not as it was written"),
        (lambda out: _index(out, lambda data: b"[" * 100_000), "dataset.json: is not a whole JSON object"),
        (lambda out: _index(out, lambda data: data.replace(b"p0-c0", b"p1-c0")), "dataset.json: "),
        (lambda out: _first(out, "bytes", 5), "dataset.json: "),
        (lambda out: _first(out, "examples", 1e300), "dataset.json: "),
        (lambda out: _first(out, "name", "../../train-000000.tar"), "dataset.json: "),
        (lambda out: _first(out, "name", "train-000001.tar"), "dataset.json: "),
        (lambda out: (_folder(out) / "dataset.json").unlink(), "dataset.json: is missing; run the same `prep build`"),
        (lambda out: (out / "current").write_text("nobody"), "current: names nobody, which is not there"),
        (lambda out: (out / "current").write_bytes(b"\xff\x00"), "current: holds "),
        (lambda out: (out / "current").unlink(), "current: has no live generation"),
    ],
)
def test_each_fault_is_one_line(out: Path, damage: Callable[[Path], object], line: str) -> None:
    damage(out)
    (found,) = lines(out)
    assert found.startswith(line) and found.isprintable() and str(out) not in found


def test_the_tar_is_checked_where_its_receipt_or_the_list_is_damaged(out: Path) -> None:
    _receipt(out, lambda data: data[:-5])
    for path in (_folder(out) / "train-000000.tar", _folder(out) / "train-000001.tar"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert lines(out)[1] == "train-000000.tar: the tar does not have the sha256 that dataset.json lists"
    (_folder(out) / "dataset.json").unlink()
    told = lines(out)
    assert [line.split(":")[0] for line in told] == ["dataset.json", "train-000000.tar", "train-000001.tar"]


def test_an_id_in_two_shards(out: Path, tmp_path: Path) -> None:
    """write_index refuses it, so dataset.json is made by hand here."""
    folder = _folder(out)
    shards.write_shard(folder / "test-000000.tar", [example("c0", split="test"), example("a-1", split="test")], {})
    receipt = (folder / "test-000000.json").read_bytes()
    listed = {key: json.loads(receipt)[key] for key in ("bytes", "sha256")}
    listed["receipt_sha256"] = hashlib.sha256(receipt).hexdigest()
    _sealed(folder, lambda index: index["splits"]["test"]["shards"][0].update(listed))
    assert "test-000000.tar: a-1: is in train-000000.tar as well" in lines(out)


def test_every_complete_generation_is_checked_the_live_one_first(out: Path) -> None:
    old = out / "generations" / "a-old"
    shutil.copytree(_folder(out), old)
    (out / "generations" / "begun").mkdir()
    (out / "generations" / "readme.txt").write_text("x")
    _sealed(old, lambda index: index.update(generation="a-old"))
    assert lines(out) == []
    for folder in (old, _folder(out)):
        tar = folder / "train-000001.tar"
        tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    told = lines(out)
    assert told[0].startswith("train-000001.tar: ")
    assert any(line.startswith("generations/a-old/train-000001.tar: ") for line in told)
    assert Verification(out).notes == ["generations/begun is not complete (no dataset.json): a build that did not end"]


def test_what_does_not_belong_is_noted_and_no_fault(out: Path) -> None:
    for name in (".train-000001.tar.77.part", "notes.txt", "train-000009.tar"):
        (_folder(out) / name).write_bytes(b"")
    checked = Verification(out)
    assert list(checked.faults()) == []
    assert checked.notes == [
        ".train-000001.tar.77.part was left by a killed run",
        "notes.txt is no file of a dataset",
        "train-000009.tar is no file of a dataset",
    ]
    shards.write_shard(_folder(out) / "train-000009.tar", [example("z")], {})
    (line,) = lines(out)
    assert line == "train-000009.tar: has a receipt with examples, which dataset.json does not list"


def test_a_dataset_of_no_examples_has_no_faults(tmp_path: Path) -> None:
    shards.write_index(tmp_path, HEADER, {"train": []})
    assert len(shards.open(tmp_path)) == 0 and list(verify(tmp_path)) == []
    (tmp_path / "dataset.json").write_text("{}")
    assert [fault.shard for fault in verify(tmp_path)] == ["dataset.json"]


def test_what_is_no_dataset(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is not a dataset"), (tmp_path / "none", "is not a folder")):
        with pytest.raises(ShardError, match=message):
            verify(path)
    with pytest.raises(ShardError, match="is not a folder"):
        verify(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_found_and_raises_nothing(out: Path, seed: int) -> None:
    """Bytes flipped, cut out, doubled or replaced, in any file of the dataset."""
    rng = np.random.default_rng(seed)
    files = [out / "current", *sorted(path for path in _folder(out).iterdir() if path.name != "train-000002.json")]
    path = files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    kind = rng.integers(4)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(7))
    elif kind == 1:
        del data[at : at + length]
    elif kind == 2:
        data[at:at] = data[at : at + length]
    else:
        data[at : at + length] = rng.bytes(length)
    if path.name == "current" and data.split(b"\n")[0] == path.read_bytes().strip():
        data = bytearray(b"other")  # below the first line stand generations of before
    changed = path.read_bytes() != data
    path.write_bytes(data)
    told = lines(out)
    assert bool(told) is changed, (path, kind, at, length)
    assert not told or path.stem in told[0]
