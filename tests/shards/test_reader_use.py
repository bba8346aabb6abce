"""What people do with an opened dataset: send it to other processes, read it in threads, go elsewhere, print it."""

import copy
import gc
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import shards
from shards import Example, ShardError, set_current, write_index, write_shard
from tests.shards.made import HEADER, dataset, example


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Example]]:
    out = tmp_path_factory.mktemp("made") / "out"
    return out, dataset(out)


def test_what_was_read_from_can_be_pickled(made: tuple[Path, list[Example]], tmp_path: Path) -> None:
    for address in (str(made[0]), f"file://{made[0]}"):
        opened = shards.open(address, cache=tmp_path / "cache")
        assert len(opened[3]["stems"][0]) == 20
        small = len(pickle.dumps(shards.open(address, cache=tmp_path / "cache")))
        assert len(pickle.dumps(opened)) == small  # neither maps nor the records at hand
        for again in (pickle.loads(pickle.dumps(opened)), copy.deepcopy(opened)):
            assert again.shards[0] is not opened.shards[0] and again.index == opened.index
            for record, wanted in zip(again, made[1], strict=True):
                np.testing.assert_array_equal(record["mixes"], wanted.mixes)
        record, member = pickle.loads(pickle.dumps((opened[3], opened[3]["levels"])))
        assert record.meta == made[1][3].meta
        np.testing.assert_array_equal(member[1, 3:9], made[1][3].levels[1, 3:9])


def test_many_threads_read_it(made: tuple[Path, list[Example]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the maps of others are let go of."""
    monkeypatch.setattr("shards.shard._MOST_OPEN", 2)
    opened = shards.open(made[0])

    def read(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for i in rng.integers(len(opened), size=300).tolist():
            stems, wanted = opened[i]["stems"], made[1][i].stems
            row, start = int(rng.integers(len(stems))), int(rng.integers(stems.shape[1]))
            if not np.array_equal(stems[row, start : start + 4], wanted[row, start : start + 4]):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(6)))


def test_what_is_relative_stays_where_it_was(
    made: tuple[Path, list[Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made[0].parent)
    local, remote = shards.open("out"), shards.open(f"file://{made[0]}", cache=os.path.relpath(tmp_path))
    monkeypatch.chdir("/")
    assert local[0].meta == remote[0].meta == made[1][0].meta
    assert len(list(tmp_path.glob("*.tar"))) == 1


def test_home_is_found(made: tuple[Path, list[Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(made[0].parent))
    assert len(shards.open("~/out")) == 6
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shards.open(f"file://{made[0]}", cache="~/mine")[0].id == "a-0"
    assert list((tmp_path / "mine").glob("*.json"))
    with pytest.raises(ShardError, match=r"^~/nothing is not a folder; give the --out .* generations$"):
        shards.open("~/nothing")
    with pytest.raises(ShardError, match=r"is not a folder.*, or an address as text, with its //$"):
        shards.open(Path("s3://bucket/data"))


def test_a_folder_that_may_not_be_looked_into(
    made: tuple[Path, list[Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, **options: bool) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", denied)
    with pytest.raises(ShardError, match="is not a folder"):
        shards.open(made[0])


def test_a_tar_that_is_cut_while_it_is_read_ends_no_process(tmp_path: Path) -> None:
    """To touch a map beyond its file's end does (SIGBUS), if nobody looks first."""
    folder = tmp_path / "generations" / HEADER["generation"]
    folder.mkdir(parents=True)
    write_shard(folder / "train-000000.tar", [example("a", frames=9000)], {})
    write_index(folder, HEADER, {"train": ["train-000000.tar"]})
    set_current(tmp_path, HEADER["generation"])
    cuts = (
        "import os, sys, shards\n"
        "from pathlib import Path\n"
        "opened = shards.open(sys.argv[1], cache=sys.argv[3])\n"
        "first = opened[0]['stems'][0, :1].copy()\n"
        "os.truncate(sys.argv[2] or next(Path(sys.argv[3]).glob('*.tar')), 70_000)\n"
        "print(opened[0]['stems'][:].shape)\n"
    )
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    shutil.copytree(tmp_path / "generations", whole)
    tar = folder / "train-000000.tar"
    cut = subprocess.run([sys.executable, "-c", cuts, tmp_path, tar, cache], capture_output=True, text=True)
    assert cut.returncode == 1 and "ShardError" in cut.stderr and "block 1 is not what its receipt says" in cut.stderr
    address = f"file://{whole / HEADER['generation']}"  # a copy in a cache is mended
    mended = subprocess.run([sys.executable, "-c", cuts, address, "", cache], capture_output=True, text=True)
    assert mended.returncode == 0 and mended.stdout == "(3, 9000, 8)\n"


def test_they_are_told_in_a_line(made: tuple[Path, list[Example]]) -> None:
    opened = shards.open(made[0])
    shard = f"{made[0]}/generations/p0-c0/train-000001.tar"
    assert repr(opened.split("train")) == f"<Dataset {made[0]}/generations/p0-c0: 4 examples in 2 shards>"
    assert repr(opened[3]) == f"<Record b_0 of {shard}>"
    assert repr(opened[3]["mixes"]) == f"<Member (4, 20, 8) float16 of {shard}>"
    assert len({opened, opened.split("test")}) == 2  # and can be a key


def test_numpy_copies_where_it_is_told_to_and_only_there(made: tuple[Path, list[Example]]) -> None:
    member = shards.open(made[0])[3]["mixes"]
    assert not np.asarray(member).flags.writeable and not np.asarray(member, copy=False).flags.writeable
    assert np.array(member).flags.writeable and np.asarray(member, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(member, np.float32, copy=False)


def test_a_dataset_that_is_dropped_lets_go_of_its_files(tmp_path: Path) -> None:
    dataset(tmp_path / "out")
    opened = shards.open(tmp_path / "out")
    crop = opened[3]["mixes"][0, 2:5]

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    assert opened[0].meta and mapped() == 2
    del opened
    gc.collect()
    assert mapped() == 1 and crop.shape == (3, 8)
    del crop
    assert not mapped()
