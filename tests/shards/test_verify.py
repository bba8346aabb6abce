"""Faults of one shard, each told by its member and its streams."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards import faults, read_receipt, write_shard
from shards.damage import Fault
from tests.shards.made import example

BLOCK = 65536
Places = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples a, b, c and d, whose streams are of 144,000 bytes: each holds a block that is all its own."""
    path = tmp_path_factory.mktemp("shard") / "train-000000.tar"
    write_shard(path, [example(name, mixes=3, frames=9000) for name in "abcd"], {})
    assert list(faults(path)) == []
    return path


@pytest.fixture
def tar(whole: Path, tmp_path: Path) -> Path:
    for suffix in (".tar", ".json"):
        (tmp_path / f"train-000000{suffix}").write_bytes(whole.with_suffix(suffix).read_bytes())
    return tmp_path / "train-000000.tar"


def places(tar: Path) -> Places:
    receipt = read_receipt(tar)
    return {f"{entry.id}.{key}": place for entry in receipt.examples for key, place in entry.members.items()}


def lines(tar: Path) -> list[str]:
    return [str(fault) for fault in faults(tar)]


def change(tar: Path, how: Callable[[bytearray, Places], bytes | bytearray]) -> None:
    tar.write_bytes(how(bytearray(tar.read_bytes()), places(tar)))


def span(data: bytearray, place: tuple[int, int]) -> bytearray:
    """A member with its header and padding."""
    return data[place[0] - 512 : place[0] + -(-place[1] // 512) * 512]


def inside(place: tuple[int, int], row: int) -> int:
    """A byte in a block that lies within one stream."""
    start = place[0] + 128 + 144_000 * row
    return -(-start // BLOCK) * BLOCK + 1000


def flipped(*at: int) -> Callable[[bytearray, Places], bytearray]:
    def flip(data: bytearray, _: Places) -> bytearray:
        for place in at:
            data[place] ^= 4
        return data

    return flip


def test_a_flipped_bit_is_named_to_its_stream(tar: Path) -> None:
    at = inside(places(tar)["b.mixes.npy"], 2)
    change(tar, flipped(at))
    (fault,) = faults(tar)
    assert fault == Fault("train-000000.tar", f"block {at // BLOCK} differs", "b.mixes.npy", 2, fault.part)
    assert str(fault) == f"train-000000.tar: b.mixes.npy stream 2 (a mix of S00, S01): block {at // BLOCK} differs"


def test_a_stem_has_its_name(tar: Path) -> None:
    at = inside(places(tar)["c.stems.npy"], 1)
    change(tar, flipped(at))
    (line,) = lines(tar)
    assert line == f"train-000000.tar: c.stems.npy stream 1 (the stem S01): block {at // BLOCK} differs"


def test_many_blocks_of_one_member_are_one_line(tar: Path) -> None:
    offset, _ = places(tar)["b.stems.npy"]
    first = offset // BLOCK + 1
    change(tar, flipped(*range(first * BLOCK, (first + 4) * BLOCK)))
    (line,) = lines(tar)
    assert line == f"train-000000.tar: b.stems.npy streams 0 to 2: blocks {first} to {first + 3} differ"


def test_a_block_of_two_members_is_one_line_with_both(tar: Path) -> None:
    found = places(tar)
    start = found["b.levels.npy"][0]
    change(tar, flipped(start - 600))
    (line,) = lines(tar)
    assert line.startswith("train-000000.tar: b.mixes.npy stream 2 (a mix of S00, S01), b.levels.npy stream")
    assert line.endswith(f": block {start // BLOCK} differs")


def test_the_empty_end(tar: Path) -> None:
    change(tar, lambda data, _: data[:-1] + b"\x01")
    (line,) = lines(tar)
    assert "differs" in line
    change(tar, lambda data, _: data[:-512])
    (line,) = lines(tar)
    assert line.endswith("; nothing but its empty end is lost")


def test_a_damaged_tar_header(tar: Path) -> None:
    change(tar, flipped(places(tar)["c.mixes.npy"][0] - 400))
    assert lines(tar) == ["train-000000.tar: c.mixes.npy: its tar header is damaged"]


@pytest.mark.parametrize("within", [-512, 0, 5000])
def test_a_cut_names_the_first_member_and_all_that_is_lost(tar: Path, within: int) -> None:
    size, at = tar.stat().st_size, places(tar)["c.mixes.npy"][0] + within
    change(tar, lambda data, _: data[:at])
    (fault,) = faults(tar)
    assert fault.member == "c.mixes.npy"
    lost = "lost: c.mixes.npy, c.levels.npy and 4 more, to d.levels.npy"
    assert str(fault) == f"train-000000.tar: c.mixes.npy: the tar is cut short, at byte {at} of {size}; {lost}"


def test_a_cut_and_a_flipped_bit_before_it_are_both_told(tar: Path) -> None:
    found = places(tar)
    change(tar, lambda data, _: flipped(inside(found["a.stems.npy"], 1))(data, found)[: found["d.json"][0]])
    cut, flip = lines(tar)
    assert "a.stems.npy stream 1 (the stem S01): block" in flip
    assert "lost: d.json, d.stems.npy and 2 more, to d.levels.npy" in cut


def test_swapped_members_of_one_size(tar: Path) -> None:
    def swap(data: bytearray, found: Places) -> bytearray:
        one, other = found["a.mixes.npy"], found["d.mixes.npy"]
        first, second = span(data, one), span(data, other)
        data[one[0] - 512 : one[0] - 512 + len(first)] = second
        data[other[0] - 512 : other[0] - 512 + len(second)] = first
        return data

    change(tar, swap)
    assert lines(tar) == [
        "train-000000.tar: a.mixes.npy: d.mixes.npy lies in its place",
        "train-000000.tar: d.mixes.npy: a.mixes.npy lies in its place",
    ]


def test_swapped_members_of_two_sizes(tar: Path) -> None:
    def swap(data: bytearray, found: Places) -> bytearray:
        json, stems = span(data, found["b.json"]), span(data, found["b.stems.npy"])
        start = found["b.json"][0] - 512
        data[start : start + len(json) + len(stems)] = stems + json
        return data

    change(tar, swap)
    told = lines(tar)
    assert told[0] == "train-000000.tar: b.json: b.stems.npy lies in its place"
    assert told[1].startswith("train-000000.tar: b.stems.npy: lies ") and len(told) == 2


def test_a_duplicated_key(tar: Path) -> None:
    """Once more behind all others, then between two, then in another's place."""
    data, found = bytearray(tar.read_bytes()), places(tar)
    piece = span(data, found["b.json"])
    tar.write_bytes(data + piece)
    more, twice = lines(tar)
    assert more == f"train-000000.tar: the tar has {len(piece)} bytes more than its receipt says"
    assert twice.startswith("train-000000.tar: b.json: is 2 times in the tar, at bytes ")

    at = found["c.json"][0] - 512
    tar.write_bytes(data[:at] + piece + data[at:])
    told = lines(tar)
    assert told[0] == more and told[-1].startswith("train-000000.tar: b.json: is 2 times in the tar")
    assert any(
        "c.mixes.npy" in line and f"lies {len(piece)} bytes later than the receipt says" in line for line in told
    )

    info = tarfile.TarInfo("b.json")
    info.size = found["c.json"][1]
    data[at : at + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(data)
    assert lines(tar)[0] == "train-000000.tar: c.json: b.json lies in its place"
    assert lines(tar)[1].startswith("train-000000.tar: b.json: is 2 times in the tar")


def test_another_tar_and_nothing_but_zeros(tar: Path, tmp_path: Path) -> None:
    other = tmp_path / "train-000001.tar"
    write_shard(other, [example("x", mixes=3, frames=9000)], {})
    size = tar.stat().st_size
    tar.write_bytes(other.read_bytes())
    assert "train-000000.tar: a.json: x.json lies in its place" in lines(tar)
    tar.write_bytes(bytes(size))
    (line,) = lines(tar)
    assert "a.json: its tar header is damaged; and so of a.stems.npy, a.mixes.npy and 13 more, to d.levels.npy" in line


def test_what_cannot_be_read(tar: Path) -> None:
    tar.unlink()
    assert lines(tar) == ["train-000000.tar: the tar is missing"]
    tar.mkdir()
    assert lines(tar) == ["train-000000.tar: the tar cannot be read (Is a directory)"]
    tar.with_suffix(".json").unlink()
    assert lines(tar) == ["train-000000.tar: its receipt is missing"]


def test_a_receipt_that_was_written_otherwise(tar: Path) -> None:
    receipt = tar.with_suffix(".json")
    data = receipt.read_bytes()
    receipt.write_bytes(data.replace(b'"shard": ', b'"shard":'))
    assert lines(tar) == ["train-000000.tar: its receipt is damaged"]
    receipt.write_bytes(data[:1000])
    assert lines(tar) == ["train-000000.tar: its receipt is not a whole JSON object (cut short or damaged)"]


def test_a_shard_of_nothing_has_no_faults(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [], {})
    assert list(faults(tmp_path / "train-000000.tar")) == []


def test_no_noise_makes_more_than_a_screen_of_lines(tar: Path) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        data = bytearray(tar.read_bytes())
        at = int(rng.integers(len(data)))
        data[at : at + 300_000] = rng.bytes(len(data[at : at + 300_000]))
        tar.write_bytes(data)
    told = lines(tar)
    assert 1 <= len(told) <= 21 and all(line.isprintable() and len(line) < 400 for line in told)
