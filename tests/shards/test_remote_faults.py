"""Servers that cut, flip, stall and lie: what is read is right in the end, or an error names shard and member."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shards
from shards import Example, ShardError, write_index, write_shard
from shards.receipt import BLOCK_BYTES
from tests.shards.made import HEADER, example
from tests.shards.servers import Plain, plain

PIECE = 4 * BLOCK_BYTES


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generation of one shard of 20 blocks, five pieces."""
    folder = tmp_path_factory.mktemp("out")
    write_shard(folder / "train-000000.tar", [made()], {})
    write_index(folder, HEADER, {"train": ["train-000000.tar"]})
    return folder


def made() -> Example:
    return example("a", stems=3, mixes=1, frames=12_000)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.remote.WAITS_S", (0.01,) * 4)
    monkeypatch.setattr("shards.remote._PIECE_BLOCKS", 4)


def _pieces(then: Callable[[Plain, int], bool]) -> Callable[[Plain], bool]:
    """Ranges of the tar are given, but first `then` may answer the n-th request for one."""
    asked = iter(range(1000))

    def fault(request: Plain) -> bool:
        if not request.path.endswith(".tar"):
            return False
        return then(request, next(asked)) or request.ranged()

    return fault


def _check(address: str, cache: Path) -> None:
    record = shards.open(address, cache=cache)[0]
    for name in ("stems", "mixes", "levels"):
        np.testing.assert_array_equal(record[name], getattr(made(), name))
    assert [path.suffix for path in sorted(cache.iterdir())] == ["", ".json", ".tar"]


def _flip(low: int, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_a_server_without_ranges_gives_all_of_it_once(out: Path, tmp_path: Path) -> None:
    with plain(out) as (address, asked):
        _check(address, tmp_path)
    # The first piece; the second, for which it begins again; all
    assert asked.count("/train-000000.tar") == 3


def _flaky(request: Plain, n: int) -> bool:
    """Seven kinds of trouble before each piece but the last."""
    kind = n % 8
    if kind == 0:
        return request.says(503)
    if kind == 1:
        return request.says(429)
    if kind == 2:
        return request.ranged(cut=100_000)
    if kind == 4:
        return request.ranged(cut=0)
    if kind == 5:
        return request.ranged(_flip)
    if kind == 6:  # a line that goes dead before a word is said
        request.close_connection = True
        return True
    return False


def test_a_flaky_server_is_asked_again(out: Path, tmp_path: Path) -> None:
    with plain(out, _pieces(_flaky)) as (address, asked):
        _check(address, tmp_path)
    assert 10 < asked.count("/train-000000.tar") < 30


def test_trouble_without_end_is_told(out: Path, tmp_path: Path) -> None:
    troubles = (
        (lambda request, n: n > 1 and request.says(503), r"cannot be read \(HTTP 503", 2 + 5),
        (lambda request, n: n > 1 and request.ranged(cut=10), r"cannot be read \(ClientPayloadError", 2 + 5),
        (lambda request, n: request.says(404), "train-000000.tar is missing there; upload it again", 1),
        (lambda request, n: request.says(403), "train-000000.tar may not be read .HTTP 403", 1),
        (lambda request, n: request.says(200, b"<html>Sign in</html>"), "is answered with a page, not", 1),
        (lambda request, n: request.ranged(lambda low, data: data[: max(0, 700_000 - low)]), "ends after 700000 b", 6),
    )
    for number, (trouble, told, tries) in enumerate(troubles):
        with plain(out, _pieces(trouble)) as (address, asked):  # type: ignore[arg-type]
            opened = shards.open(address, cache=tmp_path / str(number))
            with pytest.raises(ShardError, match=told) as raised:
                opened[0]["stems"][0]
        assert "\n" not in str(raised.value) and f"{address}/train-000000.tar" in str(raised.value)
        assert asked.count("/train-000000.tar") == tries
    assert not list(tmp_path.glob("*/*.tar"))


def test_a_flipped_bit_at_the_server(out: Path, tmp_path: Path) -> None:
    def flipped(low: int, data: bytes) -> bytes:
        at = 9 * BLOCK_BYTES + 77 - low
        return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] if 0 <= at < len(data) else data

    tar = (out / "train-000000.tar").read_bytes()
    with plain(out, _pieces(lambda request, n: request.ranged(flipped))) as (address, asked):
        opened = shards.open(address, cache=tmp_path)
        told = rf"{address}/train-000000.tar: block 9 is not what its receipt says, in a.mixes.npy stream 0; upload it"
        for _ in range(2):
            with pytest.raises(ShardError, match=told):
                opened[0]["mixes"][0, :2]
    # Three pieces and the wrong block three times; the second time that alone
    assert asked.count("/train-000000.tar") == 3 + 3 + 3
    (part,) = tmp_path.glob("*.part")
    kept = part.read_bytes()
    landed = [i for i in range(20) if kept[i * BLOCK_BYTES :][:BLOCK_BYTES] == tar[i * BLOCK_BYTES :][:BLOCK_BYTES]]
    assert landed == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert not any(kept[9 * BLOCK_BYTES : 10 * BLOCK_BYTES]) and not any(kept[12 * BLOCK_BYTES :])
    with plain(out) as (address, _):  # mended there
        _check(address, tmp_path)


def test_receipts_are_held_to_their_digests_and_asked_for_once(out: Path, tmp_path: Path) -> None:
    def lies(request: Plain) -> bool:
        return request.path.endswith("0.json") and request.says(200, request.body().replace(b"a", b"b"))

    with plain(out, lies) as (address, _):
        opened = shards.open(address, cache=tmp_path)
        with pytest.raises(ShardError, match=r"train-000000.json is not the file that belongs there; upload the data"):
            opened[0]
    assert not list(tmp_path.iterdir())
    with plain(out) as (address, asked):
        for _ in range(2):
            assert shards.open(address, cache=tmp_path).ids == ("a",)
    assert asked.count("/train-000000.json") == 1


def test_a_damaged_copy_is_mended_in_place(out: Path, tmp_path: Path) -> None:
    ranges: list[str] = []

    def noted(request: Plain, n: int) -> bool:
        ranges.append(request.headers["Range"])
        return False

    with plain(out, _pieces(noted)) as (address, _):
        _check(address, tmp_path)
        (tar,) = tmp_path.glob("*.tar")
        ranges.clear()
        with tar.open("r+b") as file:
            for block in (2, 9, 10):  # as after a power cut
                file.seek(block * BLOCK_BYTES)
                file.write(bytes(BLOCK_BYTES))
        _check(address, tmp_path)
    assert ranges == [f"bytes={low * BLOCK_BYTES}-{high * BLOCK_BYTES - 1}" for low, high in ((2, 3), (9, 11))]


def test_a_killed_process_leaves_what_another_goes_on_with(out: Path, tmp_path: Path) -> None:
    third, going, ranges = threading.Event(), threading.Event(), []

    def stalls(request: Plain, n: int) -> bool:
        ranges.append(request.headers["Range"])
        if n == 2:
            third.set()
            going.wait(30)
        return False

    code = (
        "import sys, shards, shards.remote\n"
        "shards.remote._PIECE_BLOCKS = 4\n"
        "shards.open(sys.argv[1], cache=sys.argv[2])[0]['stems'][0]\n"
    )
    with plain(out, _pieces(stalls)) as (address, _):
        with subprocess.Popen([sys.executable, "-c", code, address, tmp_path]) as fetching:
            assert third.wait(30)
            fetching.kill()
        assert fetching.returncode == -signal.SIGKILL
        assert [path.suffix for path in sorted(tmp_path.iterdir())] == ["", ".json", ".part"]
        going.set()
        _check(address, tmp_path)
    lows = [int(re.findall(r"\d+", asked)[0]) // PIECE for asked in ranges]
    assert lows == [0, 1, 2, 2, 3, 4]
