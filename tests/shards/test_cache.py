"""The folder that shards are copied to: its limit, and the processes that share it."""

import errno
import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

import shards
from shards import ShardError, shard_names, write_index, write_shard
from shards.cache import Cache
from tests.shards.made import HEADER, example
from tests.shards.servers import Plain, plain

KB = 1000


def _fill(text: bytes) -> Callable[[BinaryIO, bool], None]:
    def fill(file: BinaryIO, fresh: bool) -> None:
        os.pwrite(file.fileno(), text, 0)

    return fill


def _bring(cache: Cache, name: str, size: int = KB, wait: bool = True) -> bool:
    file = cache.open(name, size, _fill(name[:1].encode() * size), wait)
    if file:
        with file:
            assert os.pread(file.fileno(), 2 * size, 0) == name[:1].encode() * size
    return file is not None


def _never(file: BinaryIO, fresh: bool) -> None:
    raise AssertionError("it is there")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_what_was_opened_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "cache", 3 * KB)
    for name in ("a.tar", "b.tar", "c.tar"):
        assert _bring(cache, name)
    cache.open("a.tar", KB, _never).close()  # type: ignore[union-attr]
    _bring(cache, "d.tar")
    assert _names(cache.folder) == ["a.tar", "c.tar", "d.tar"]
    assert cache.use("c.tar") and not cache.use("b.tar")
    _bring(cache, "e.tar", 2 * KB)
    assert _names(cache.folder) == ["c.tar", "e.tar"]
    cache.keep("x.json", bytes(KB))  # small ones count when room is made
    _bring(cache, "f.tar")
    assert _names(cache.folder) == ["f.tar", "x.json"]
    (cache.folder / "mine.txt").write_bytes(bytes(KB))
    _bring(cache, "g.tar", 2 * KB)
    assert _names(cache.folder) == ["g.tar", "mine.txt"]  # what is not ours stays


def test_what_was_dropped_is_still_readable(tmp_path: Path) -> None:
    cache = Cache(tmp_path, KB)
    first = cache.open("a.tar", KB, _fill(b"a" * KB))
    assert first and cache.holds("a.tar", os.fstat(first.fileno()).st_ino)
    _bring(cache, "b.tar")
    assert not cache.holds("a.tar", os.fstat(first.fileno()).st_ino)
    assert os.pread(first.fileno(), KB, 0) == b"a" * KB
    first.close()


def test_what_a_dead_process_left_goes_before_all_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * KB)
    (tmp_path / "dead.tar.part").write_bytes(bytes(KB))
    (tmp_path / "live.tar.part").write_bytes(bytes(KB))
    with (tmp_path / "live.tar.part").open() as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        _bring(cache, "a.tar")
        assert _names(tmp_path) == ["a.tar", "dead.tar.part", "live.tar.part"]
        _bring(cache, "b.tar")
        assert _names(tmp_path) == ["a.tar", "b.tar", "live.tar.part"]
        assert not _bring(cache, "live.tar", wait=False)  # another is bringing it
        assert not _bring(cache, "c.tar", 3 * KB, wait=False)  # no room while it does
        assert _names(tmp_path) == ["live.tar.part"]


def test_one_waits_for_what_another_brings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, slept = Cache(tmp_path, 3 * KB), []
    (tmp_path / "live.tar.part").write_bytes(bytes(KB))
    with (tmp_path / "live.tar.part").open() as live:
        fcntl.flock(live, fcntl.LOCK_EX)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                os.replace(tmp_path / "live.tar.part", tmp_path / "live.tar")

        monkeypatch.setattr("shards.cache.time.sleep", sleep)
        _bring(cache, "c.tar", 3 * KB)
        assert len(slept) == 3 and _names(tmp_path) == ["c.tar"]
    (tmp_path / "live.tar.part").write_bytes(bytes(KB))
    with (tmp_path / "live.tar.part").open() as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        monkeypatch.setattr("shards.cache._MOST_WAIT_S", 0)
        with pytest.raises(ShardError, match="what other processes are bringing took all of its 3e-06 GB"):
            _bring(cache, "d.tar", 3 * KB)
        assert _names(tmp_path) == ["live.tar.part"]


def test_an_interrupted_one_is_gone_on_with(tmp_path: Path) -> None:
    cache, found = Cache(tmp_path, 2 * KB), []

    def breaks(file: BinaryIO, fresh: bool) -> None:
        found.append((fresh, os.pread(file.fileno(), 3, 0), os.fstat(file.fileno()).st_size))
        os.pwrite(file.fileno(), b"abc", 0)
        raise ShardError("server")

    for _ in range(2):
        with pytest.raises(ShardError, match="server"):
            cache.open("a.tar", KB, breaks)
    assert found == [(True, bytes(3), KB), (False, b"abc", KB)]
    (tmp_path / "a.tar.part").write_bytes(b"zz")  # of a process that died before it had its room
    with pytest.raises(ShardError, match="server"):
        cache.open("a.tar", KB, breaks)
    assert found[2] == found[0]
    (tmp_path / "a.tar").write_bytes(b"of another size")
    assert _bring(cache, "a.tar") and _names(tmp_path) == ["a.tar"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, 10 * KB)
    for name in ("a.tar", "b.tar", "c.tar"):
        _bring(cache, name)
    free, allocate = [1500], os.posix_fallocate

    def full(handle: int, offset: int, size: int) -> None:
        if size > free[0] + KB * (3 - len(list(tmp_path.glob("*.tar")))):
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(handle, offset, size)

    monkeypatch.setattr(Cache, "_free", lambda self: free[0])
    monkeypatch.setattr("shards.cache.os.posix_fallocate", full)
    _bring(cache, "d.tar", 2 * KB)  # older ones make way, though the limit would not ask for it
    assert _names(tmp_path) == ["b.tar", "c.tar", "d.tar"]
    free[0] = -4 * KB
    with pytest.raises(ShardError, match=r"has no room for a shard of 0.002 MB \(-0.004 are free\); free some, or put"):
        _bring(cache, "e.tar", 2 * KB)
    assert _names(tmp_path) == []


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, 10 * KB)

    def denied(*arguments: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("shards.cache.os.open", denied)
    with pytest.raises(ShardError, match=r"cannot be used as a cache \(Permission denied\); give another folder"):
        _bring(cache, "a.tar")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    names = shard_names("train", 8)
    for number, name in enumerate(names):
        write_shard(folder / name, [example(f"a{number}", frames=600)], {})
    write_index(folder, HEADER, {"train": names})
    return folder


def test_maps_of_what_was_dropped_are_let_go(many: Path, tmp_path: Path) -> None:
    size = (many / "train-000000.tar").stat().st_size
    with plain(many) as (address, asked):
        opened = shards.open(address, cache=tmp_path, cache_gb=2.5 * size / 1e9)
        crops = [record["stems"][0, :3] for record in opened]
        assert [shard._map is not None for shard in opened.shards] == [False] * 6 + [True] * 2
        local = shards.open(many)
        for number, crop in enumerate(crops):
            np.testing.assert_array_equal(crop, local[number]["stems"][0, :3])
        np.testing.assert_array_equal(opened[0]["mixes"], local[0]["mixes"])
    assert asked.count("/train-000000.tar") == 2


def _hammer(address: str, cache: Path, limit: int, seed: int, local: Path) -> None:
    opened, wanted = shards.open(address, cache=cache, cache_gb=limit / 1e9), shards.open(local)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        order = rng.permutation(len(opened)).tolist()
        opened.place.fetch([opened.shards[i].listed for i in order[:3]])
        for i in order:
            np.testing.assert_array_equal(opened[i]["levels"], wanted[i]["levels"])


def test_two_processes_and_a_cache_that_is_too_small_for_both(many: Path, tmp_path: Path) -> None:
    size = (many / "train-000000.tar").stat().st_size
    limit, most = 3 * size + 8 * (many / "train-000000.json").stat().st_size, 0
    context = multiprocessing.get_context("spawn")
    trouble = iter([True, False, False] * 1000)

    def fault(request: Plain) -> bool:
        return request.path.endswith(".tar") and (next(trouble) and request.says(503))

    with plain(many, fault) as (address, asked):
        workers = [
            context.Process(target=_hammer, args=(address, tmp_path, limit, seed, many), daemon=True) for seed in (1, 2)
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            taken = 0
            for entry in os.scandir(tmp_path):
                try:
                    taken += entry.stat().st_size
                except FileNotFoundError:
                    continue
            most = max(most, taken)
            workers[0].join(0.002)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert 2 * size < most <= limit
    assert sum(path.endswith(".tar") for path in asked) > 8
    assert all(name.endswith((".tar", ".json")) for name in _names(tmp_path))


def test_a_folder_that_is_cleared_away_is_made_again(many: Path, tmp_path: Path) -> None:
    opened = shards.open(f"file://{many}", cache=tmp_path / "cache")
    crop = opened[0]["stems"][0, :3]
    shutil.rmtree(tmp_path / "cache")
    local = shards.open(many)
    for number in range(3):
        np.testing.assert_array_equal(opened[number]["stems"][1, :3], local[number]["stems"][1, :3])
    np.testing.assert_array_equal(crop, local[0]["stems"][0, :3])


def test_a_cache_that_holds_the_tars_alone_does_not_thrash(many: Path, tmp_path: Path) -> None:
    """Their receipts take room as well: of a global shuffle, each shard would be fetched again and again."""
    opened = shards.open(many)
    sizes = [shard.listed.bytes for shard in opened.shards]
    with plain(many) as (address, asked):
        opened = shards.open(address, cache=tmp_path, cache_gb=sum(sizes) / 1e9)
        order = opened.order(np.full(8, 10))
        loader = shards.Loader(order, 4, lambda index, rng: opened[index // 10]["mixes"][0, :3], list, 0, epochs=3)
        assert len(list(loader)) == 60
        fetched = [path for path in asked if path.endswith(".tar")]
    assert 8 <= len(fetched) <= 4 * 8  # with what was fetched ahead of the next epoch


def test_other_splits_need_room_as_well(tmp_path: Path) -> None:
    names = {"train": shard_names("train", 2), "test": shard_names("test", 6)}
    for split, tars in names.items():
        for number, name in enumerate(tars):
            write_shard(tmp_path / name, [example(f"{split}{number}", frames=900, split=split)], {})
    write_index(tmp_path, HEADER, names)
    size = (tmp_path / "train-000000.tar").stat().st_size
    for room, kind in ((7, shards.Windows), (9, shards.Shuffle)):
        opened = shards.open(f"file://{tmp_path}", cache=tmp_path / "cache", cache_gb=room * size / 1e9)
        assert isinstance(opened.split("train").order(), kind)


def test_a_disk_that_is_smaller_than_the_cache_may_grow(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards would be dropped for want of room, whatever the order thinks."""
    opened = shards.open(f"file://{many}", cache=tmp_path)
    size = opened.shards[0].listed.bytes
    assert opened[0].meta and opened[1].meta  # these are there, and count
    monkeypatch.setattr(Cache, "_free", lambda self: 7 * size)
    assert isinstance(opened.order(), shards.Shuffle)
    monkeypatch.setattr(Cache, "_free", lambda self: 5 * size)
    with pytest.raises(
        ShardError, match=r"its disk has room for .* of the 100 that cache_gb allows, and .*; lower cache_gb"
    ):
        opened.order()
    assert isinstance(shards.open(f"file://{many}", cache=tmp_path, cache_gb=6 * size / 1e9).order(), shards.Windows)
