"""Datasets of many shards: more than a process may have open, more than a cache holds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shards
from shards import ShardError, shard_names, write_index, write_shard
from shards.place import Folder
from tests.shards.made import HEADER, example


def test_more_shards_than_a_process_may_have_open(tmp_path: Path) -> None:
    names = shard_names("train", 40)
    for number, name in enumerate(names):
        write_shard(tmp_path / name, [example(f"a{number}")], {})
    write_index(tmp_path, HEADER, {"train": names})
    code = (
        "import resource, sys, shards, shards.shard\n"
        "shards.shard._MOST_OPEN = 8\n"
        "opened = shards.open(sys.argv[1])\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (24, hard))\n"
        "first = [record['stems'][0].copy() for record in opened]\n"
        "again = [record['stems'][0].copy() for record in opened]\n"
        "assert all((a == b).all() for a, b in zip(first[:4], again[:4]))\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_the_order_fits_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that holds all of the shards, some of them, or too few."""
    names = shard_names("train", 5)
    for number, name in enumerate(names):
        write_shard(tmp_path / name, [example(f"a{number}"), example(f"b{number}")], {})
    write_index(tmp_path, HEADER, {"train": names})
    train = shards.open(tmp_path)
    size = train.shards[0].listed.bytes
    assert isinstance(train.order(), shards.Shuffle) and train.order(range(10)).size == 45
    for room, kind in ((5 * size, shards.Shuffle), (3 * size, shards.Windows)):
        monkeypatch.setattr(Folder, "room", lambda self, wanted, room=room: None if wanted <= room else room)
        order = train.order([3, 0] * 5)
        assert isinstance(order, kind) and order.size == 15
    _, indices = order.places(np.arange(15), seed=0)
    assert sorted(indices.tolist()) == list(range(15))
    assert all(len(set(shard)) == 1 for shard in (indices // 3).reshape(5, 3).tolist())  # one shard after the other
    monkeypatch.setattr(Folder, "room", lambda self, wanted: 2 * size)
    with pytest.raises(ShardError, match=r"three of its shards may have .* raise cache_gb"):
        train.order()
    with pytest.raises(ShardError, match="3 counts for 10 examples; give one for each"):
        train.order([1, 2, 3])
