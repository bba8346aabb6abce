"""Datasets at an address: nginx, a server without ranges, and an S3 endpoint through s3fs."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from shards import Example, ShardError
from tests.shards.made import HEADER, dataset
from tests.shards.servers import nginx, nginx_missing, plain

BUCKET = "made"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Example]]:
    out = tmp_path_factory.mktemp("made") / "out"
    return out, dataset(out)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.remote.WAITS_S", (0.01,) * 4)


@pytest.fixture(scope="module")
def asked(made: tuple[Path, list[Example]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """nginx's address of the dataset, and what it was asked for."""
    if reason := nginx_missing():
        pytest.skip(reason)
    with nginx(made[0], tmp_path_factory.mktemp("server") / "nginx") as served:
        yield served


@pytest.fixture(scope="module")
def bucket(made: tuple[Path, list[Example]]) -> Iterator[str]:
    """An address on an S3 endpoint. The environment says where, as it would elsewhere."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "made")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        system = s3fs.S3FileSystem(skip_instance_cache=True)
        system.mkdir(BUCKET)
        system.put(str(made[0]), f"{BUCKET}/data", recursive=True)
        yield f"s3://{BUCKET}/data"
    server.stop()


@pytest.fixture(params=["nginx", "plain", "s3", "memory"])
def url(request: pytest.FixtureRequest, made: tuple[Path, list[Example]]) -> Iterator[str]:
    if request.param == "nginx":
        yield request.getfixturevalue("asked")[0]
    elif request.param == "s3":
        yield request.getfixturevalue("bucket")
    elif request.param == "plain":
        with plain(made[0]) as (address, _):
            yield address
    else:
        import fsspec

        fsspec.filesystem("memory").put(str(made[0]), "/made", recursive=True)
        yield "memory://made"


def test_equal_arrays_from_anywhere(url: str, made: tuple[Path, list[Example]], tmp_path: Path) -> None:
    local = shards.open(made[0])
    for address in (url, f"{url}/", f"{url}/generations/{HEADER['generation']}"):
        opened = shards.open(address, cache=tmp_path / "cache")
        assert (len(opened), opened.ids, opened.index) == (len(local), local.ids, local.index)
        for record, wanted in zip(opened, made[1], strict=True):
            assert (record.id, record.meta, record.sources) == (wanted.id, wanted.meta, wanted.sources)
            for name in ("stems", "mixes", "levels"):
                np.testing.assert_array_equal(record[name], getattr(wanted, name))
    kept = sorted(path.suffix for path in (tmp_path / "cache").iterdir())
    assert kept == ["", *[".json"] * 3, *[".tar"] * 3]  # of all three openings; the first is the lock


def test_what_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"/nowhere is not a dataset \(no `current`, no dataset.json there\)"):
        shards.open(f"{url}/nowhere", cache=tmp_path)
    with pytest.raises(ShardError, match="is not a dataset"):
        shards.open(f"{url}/generations", cache=tmp_path)


def test_only_what_is_touched_is_fetched_and_once(asked: Any, tmp_path: Path) -> None:
    address, log = asked
    told = len(log())

    def new() -> list[str]:
        return [line.replace(f"/generations/{HEADER['generation']}", "") for line in log()[told:]]

    opened = shards.open(address, cache=tmp_path)
    opening = ["GET /dataset.json 404", "GET /current 206", "GET /dataset.json 206"]
    assert new() == opening
    first = opened.split("test")[0]
    assert new() == [*opening, "GET /test-000000.json 206"]
    assert first["stems"][0, 2:4].shape == (2, 8) and first.meta["id"] == "c0"
    assert new() == [*opening, "GET /test-000000.json 206", "GET /test-000000.tar 206"]
    again = shards.open(address, cache=tmp_path)
    np.testing.assert_array_equal(again[-2]["stems"], first["stems"])
    assert new()[5:] == opening


def test_fetch_brings_shards_ahead(asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = shards.open(asked[0], cache=tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr("shards.cache.Cache._free", lambda self: 10**12)
        assert [opened.place.room(wanted * 10**9) for wanted in (95, 96)] == [None, 95 * 10**9]
    opened.place.fetch([shard.listed for shard in opened.shards])
    for thread in opened.place._threads:  # type: ignore[attr-defined]
        thread.join()
    told = len(asked[1]())
    assert len(list(tmp_path.glob("*.tar"))) == 3 and not list(tmp_path.glob("*.part"))
    assert len(list(opened)) == 6 and [record["levels"][0, 0] for record in opened]
    opened.place.fetch([shard.listed for shard in opened.shards])
    assert not opened.place._threads and len(asked[1]()) == told  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("url", ["nginx", "s3"], indirect=True)
def test_a_dataset_that_was_opened_before_a_fork(
    url: str, made: tuple[Path, list[Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.WAITS_S", ())
    monkeypatch.setattr("shards.address._SILENCE_S", 10)
    opened = shards.open(url, cache=tmp_path)
    np.testing.assert_array_equal(opened[0]["stems"], made[1][0].stems)

    def read(indices: list[int]) -> None:
        for i in indices:
            np.testing.assert_array_equal(opened[i]["stems"], made[1][i].stems)
        gc.collect()  # must not close the parent's connection

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=read, args=(indices,)) for indices in ([3, 4], [5, 3, 0])]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    for i in (3, 4):
        np.testing.assert_array_equal(opened[i]["stems"], made[1][i].stems)


def test_redirects_are_followed(asked: Any, tmp_path: Path) -> None:
    assert shards.open(f"{asked[0]}/moved", cache=tmp_path)[3]["mixes"][3].shape == (20, 8)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("{nginx}/secret", r"/secret/current may not be read \(HTTP 403 Forbidden\); give a name and password"),
        ("{nginx}/round", r"cannot be read \(TooManyRedirects.*\); see whether the address is right"),
        ("http://127.0.0.1:9/x", r"127.0.0.1:9/x/dataset.json cannot be read \(ClientConnectorError: .*server is up"),
        ("http://me:word@nowhere.invalid/x", r"^http://nowhere.invalid/x/dataset.json cannot be read \(Client.*is up"),
        ("http://host/x?key=1", r"is not the address of a folder; give https://host/path, without \? and #"),
        ("https://", "is not the address of a folder"),
        ("nothing://x/y", "Protocol not known: nothing.*; give a folder, https://… or s3://…"),
        ("gs://x/y", "needs a package that is not installed .*gcsfs.*; pip install it"),
    ],
)
def test_wrong_addresses(address: str, told: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "{nginx}" in address:
        address = address.format(nginx=request.getfixturevalue("asked")[0])
    with pytest.raises(ShardError, match=told) as raised:
        shards.open(address, cache=tmp_path)
    assert "\n" not in str(raised.value) and "me:word" not in str(raised.value)


def test_s3_without_keys(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ShardError, match=r"may not be read \(NoCredentialsError.*; give AWS's keys.*FSSPEC_S3_ANON=1"):
        shards.open(bucket, cache=tmp_path)


def _answers(status: int, text: bytes = b"") -> Callable[[Any], bool]:
    return lambda request: request.says(status, text)


@pytest.mark.parametrize(
    ("fault", "told", "tries"),
    [
        (_answers(503), r"dataset.json cannot be read \(HTTP 503 .*\); see whether .* the server is up", 3),
        (_answers(418), r"dataset.json cannot be read \(HTTP 418 .*\); see whether the address is right$", 1),
        (_answers(401), "current may not be read .HTTP 401", 2),
        (_answers(200, b"\n<!doctype html>"), "dataset.json is answered with a page, not with the file; see", 1),
        (_answers(200, b"{}"), "dataset.json lacks format", 1),
        (_answers(200), "dataset.json is not a whole JSON object", 1),
    ],
)
def test_servers_that_say_no(
    fault: Any, told: str, tries: int, made: tuple[Path, list[Example]], tmp_path: Path
) -> None:
    with plain(made[0], fault) as (address, asked), pytest.raises(ShardError, match=told):
        shards.open(address, cache=tmp_path)
    assert len(asked) == tries


def test_the_cache_is_where_it_is_said_to_be(
    made: tuple[Path, list[Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GREENROOM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with plain(made[0]) as (address, _):
        assert shards.open(address)[0].meta["id"] == "a-0"
        assert len(list((tmp_path / "home/.cache/greenroom").glob("*.tar"))) == 1
        monkeypatch.setenv("GREENROOM_CACHE", str(tmp_path / "named"))
        assert shards.open(address)[0].meta["id"] == "a-0"
        assert len(list((tmp_path / "named").glob("*.tar"))) == 1
        with pytest.raises(
            ShardError, match=r"has a shard of 2.05e-05 GB, which cache_gb=1e-05 cannot hold; give more"
        ):
            shards.open(address, cache_gb=1e-5)
        for wrong in (0, -1.0, float("nan")):
            with pytest.raises(ShardError, match=r"cache_gb is .*; it must be above 0"):
                shards.open(address, cache_gb=wrong)
        (tmp_path / "file").write_text("")
        with pytest.raises(ShardError, match=r"file/x cannot be used as a cache \(Not a directory\); give another"):
            shards.open(address, cache=tmp_path / "file" / "x")
    assert len(shards.open(made[0], cache=tmp_path / "unused")) == 6  # a local path needs none
    assert not os.path.exists(tmp_path / "unused")
