"""Every kind of damage once, each in its own copy; `python -m tests.bench.faults` does 300 to a built dataset."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards import set_current, shard_names, write_index, write_shard
from tests.shards.damage import KINDS, damaged, folder_of, tars_of
from tests.shards.finders import reading, sound_of, verifying, webdataset_says
from tests.shards.made import HEADER, example


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Members of several blocks, and several of a block."""
    out = tmp_path_factory.mktemp("built")
    folder = out / "generations" / HEADER["generation"]
    folder.mkdir(parents=True)
    for number, name in enumerate(shard_names("train", 2)):
        examples = [example(f"t{number}-{k}", frames=[2500, 9, 12][k], mixes=k) for k in range(3)]
        write_shard(folder / name, examples, {"machine": "made"})
    write_shard(folder / "test-000000.tar", [example("c", frames=700, split="test")], {"machine": "made"})
    write_index(folder, HEADER, {"train": shard_names("train", 2), "test": ["test-000000.tar"]})
    set_current(out, HEADER["generation"])
    yield out
    assert reading(out) == verifying(out) == []  # no copy was the original


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_all_damage_is_found_and_named(built: Path, tmp_path: Path, kind: str, seed: int) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    damage = damaged(out, kind, np.random.default_rng([seed, *kind.encode()]))
    read, verified = reading(out), verifying(out)
    assert damage.is_named(read + verified), damage.told
    if "end" not in kind and "padding" not in kind:  # which no reader has a use for
        assert read, damage.told


def test_there_are_300() -> None:
    assert sum(number for number, _ in KINDS.values()) == 300


def test_what_is_named_is_the_damage(built: Path) -> None:
    """The count of what was named is no count of what was told."""
    lines = ["train-000000.tar: block 0 differs, in t0-0.json, t0-0.stems.npy stream 0"]
    rng = np.random.default_rng(0)
    for kind, named in (("swapped members", False), ("wrong current", False)):
        copy = built.parent / kind
        shutil.copytree(built, copy)
        assert damaged(copy, kind, rng).is_named(lines) is named


def test_webdataset_is_asked_for_the_same(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    _, sound = sound_of(built)
    assert len(sound) == 7 and webdataset_says(tars_of(out), sound) == "same"
    tar = folder_of(out) / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    tar.write_bytes(data[:-20480] + bytes([data[-20480] ^ 1]) + data[-20479:])
    assert webdataset_says(tars_of(out), sound) == "wrong"
    tar.write_bytes(data[:2000])
    assert webdataset_says(tars_of(out), sound) == "raised"
