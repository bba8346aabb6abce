from pathlib import Path

import pytest

from shards import faults, write_shard
from tests.shards.made import example


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "train-000000.tar"
    write_shard(path, [example("a", frames=3000), example("b", frames=3000)], {})
    assert list(faults(path)) == []
    return path


def test_a_flipped_bit_is_named_to_its_member(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[200_000] ^= 4
    tar.write_bytes(data)
    (line,) = faults(tar)
    assert line == "train-000000.tar: block 3 differs, in a.mixes.npy stream 1, a.levels.npy stream 0"


def test_a_flipped_bit_in_the_padding(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)
    (line,) = faults(tar)
    assert line.startswith(f"train-000000.tar: block {(len(data) - 1) // 65536} differs, in ")


def test_a_cut_is_told(tar: Path) -> None:
    size = len(tar.read_bytes())
    tar.write_bytes(tar.read_bytes()[:-10240])
    lines = list(faults(tar))
    assert lines[0] == f"train-000000.tar: {size - 10240} bytes, its receipt says {size}"


def test_a_shard_of_nothing_has_no_faults(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [], {})
    assert list(faults(tmp_path / "train-000000.tar")) == []
