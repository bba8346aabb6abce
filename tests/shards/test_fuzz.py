"""Broken and hostile files are put to the reader: only the library's own errors may come out.

What is changed in a receipt or in dataset.json is sealed again, digests and all, so that it gets through to the parser.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shards
from shards import ShardError, finished, read_receipt, write_index
from shards.receipt import digests
from tests.shards.made import HEADER, dataset

# GREENROOM_FUZZ=20000 tries as many for each of the tests; the suite a few, and the same each time
TRIES = int(os.environ.get("GREENROOM_FUZZ", "60"))
fuzz = settings(
    max_examples=TRIES, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
)
SEEDS = st.integers(0, 2**64 - 1)
SHARDS = {"train": ["train-000000.tar", "train-000001.tar"], "validation": [], "test": ["test-000000.tar"]}
TARS = [name for names in SHARDS.values() for name in names]

DEEP = "deep"  # stands for lists in lists, deeper than Python goes
ODD = [
    0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, 1e308, 0.5, -0.0, float("nan"), float("inf"),
    DEEP, "", "a", "a-0", "../x.tar", "/etc/passwd", "a\0.tar", "x.tar", "train-000000.tar", "9" * 5000, "\ud800.tar",
    "x" * 300 + ".tar", "a\nb", True, None, [], {}, [[]], [0, 0], [0, 2**40, 8], [0, 2**70, 8], [2**40, 2**40, 2**40],
]  # fmt: skip


READERS: list[Callable[[shards.Record], Any]] = [
    lambda record: (record.id, record.sources, record.meta),
    *(lambda record, name=name: np.asarray(record[name]).tobytes() for name in ("stems", "mixes", "levels")),
    lambda record: record["mixes"][-1, 0:3] if len(record["mixes"]) else None,
    lambda record: [row[::2] for row in record["stems"]],
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A generation's files: name -> bytes."""
    out = tmp_path_factory.mktemp("sound")
    dataset(out)
    folder = out / "generations" / HEADER["generation"]
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    _read_everything(folder, strict=True)
    return found


def _dumped(value: dict[str, Any], indent: int | None = None) -> bytes:
    """NaN and infinity pass."""
    data = json.dumps(value, indent=indent).encode()
    depth = 600 + len(data) % 600
    return data.replace(b'"deep"', b"[" * depth + b"]" * depth)


def _sealed(index: dict[str, Any]) -> bytes:
    """As `shards.index.seal`."""
    head = _dumped({key: value for key, value in index.items() if key != "sha256"}, 1)[:-2]
    return head + b',\n "sha256": "%s"\n}\n' % hashlib.sha256(head).hexdigest().encode()


def _resealed(files: dict[str, bytes], receipts: dict[str, bytes]) -> dict[str, bytes]:
    """With these receipts, and their digests in dataset.json."""
    index = json.loads(files["dataset.json"])
    for split in index["splits"].values():
        for shard in split["shards"]:
            name = shard["name"].replace(".tar", ".json")
            shard["receipt_sha256"] = hashlib.sha256(receipts.get(name, files[name])).hexdigest()
    return files | receipts | {"dataset.json": _sealed(index)}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _paths(item, (*path, key))


def _changed(value: dict[str, Any], rng: Random) -> dict[str, Any]:
    """A copy with one to three places replaced, removed, doubled, or overwritten by what stands elsewhere."""
    value = deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = [path for path in _paths(value) if path]
        if not places:
            break
        # a place near the top as often as one of the many below
        length = rng.choice(sorted({len(path) for path in places}))
        *path, key = rng.choice([path for path in places if len(path) == length])
        parent, do = _at(value, path), rng.choice(["replace", "replace", "remove", "double", "copy"])
        if do == "replace":
            parent[key] = _value(rng)
        elif do == "remove":
            del parent[key]
        elif do == "double" and isinstance(parent, list):
            parent.insert(key, deepcopy(parent[key]))
        else:
            parent[key] = deepcopy(_at(value, rng.choice(places)))
    return value


def _value(rng: Random) -> Any:
    kind = rng.random()
    if kind < 0.7:
        return deepcopy(rng.choice(ODD))
    if kind < 0.8:
        return rng.randint(-(2 ** rng.randint(1, 70)), 2 ** rng.randint(1, 70))
    inner = [_value(rng) for _ in range(rng.randint(0, 3))]
    return inner if kind < 0.9 else {str(_value(rng))[:9]: item for item in inner}


def _at(value: Any, path: Any) -> Any:
    for key in path:
        value = value[key]
    return value


def _read_everything(folder: Path, strict: bool = False) -> None:
    """Calls all that reads a dataset; a ShardError of one call keeps no other from being called."""
    told: list[ShardError] = []

    def call(function: Callable[..., Any], *values: Any) -> Any:
        try:
            return function(*values)
        except ShardError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            told.append(error)

    for verify in (True, False):
        opened = call(lambda verify: shards.open(folder, verify=verify), verify)
        for split in opened.splits if opened else ():
            _read_split(opened, split, call)
    for tar in (folder / name for name in TARS):
        call(read_receipt, tar)
        finished(tar)
        with suppress(OSError):  # as it says
            call(lambda tar: list(shards.faults(tar)), tar)
    call(write_index, folder, HEADER, SHARDS)
    if strict:
        assert len(told) == 4 and all("so no statistics" in str(error) for error in told)


def _read_split(opened: shards.Dataset, split: str, call: Callable[..., Any]) -> None:
    for role in ("stem", "mix"):
        call(opened.moments, role, split)
    part = call(opened.split, split)
    call(lambda: part.ids)
    for number in range(min(len(part), 4)):
        for read in READERS:
            call(lambda number, read: read(part[number]), number, read)


def _try(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        _read_everything(Path(folder))


@fuzz
@given(SEEDS)
def test_receipts_of_any_shape(files: dict[str, bytes], seed: int) -> None:
    rng = Random(seed)
    name = rng.choice(TARS).replace(".tar", ".json")
    _try(_resealed(files, {name: _dumped(_changed(json.loads(files[name]), rng))}))


@fuzz
@given(SEEDS)
def test_a_dataset_json_of_any_shape(files: dict[str, bytes], seed: int) -> None:
    index = json.loads(files["dataset.json"])
    del index["sha256"]
    _try(files | {"dataset.json": _sealed(_changed(index, Random(seed)))})


@fuzz
@given(SEEDS)
def test_an_examples_json_of_any_shape(files: dict[str, bytes], seed: int) -> None:
    """In a tar whose digests are made anew."""
    offset, size = json.loads(files["train-000000.json"])["examples"][0]["members"]["json"]
    tar = bytearray(files["train-000000.tar"])
    meta = _changed(json.loads(tar[offset : offset + size]), Random(seed))
    tar[offset : offset + size] = _dumped(meta)[:size].ljust(size)
    _try(_with_tar(files, "train-000000", bytes(tar)))


@fuzz
@given(SEEDS)
def test_bytes_of_any_kind_in_any_file(files: dict[str, bytes], seed: int) -> None:
    """Flipped, overwritten, cut, doubled; a tar's with and without digests that vouch for it."""
    rng = Random(seed)
    name = rng.choice(sorted(files))
    changed = bytearray(files[name])
    for _ in range(rng.randint(1, 4)):
        at, new = rng.randint(0, len(changed)), rng.randbytes(rng.randint(0, 20))
        do = rng.choice(["overwrite", "cut", "insert", "remove"])
        if do == "cut":
            del changed[at:]
        else:
            changed[at : at + (0 if do == "insert" else len(new))] = b"" if do == "remove" else new
    vouched = name.endswith(".tar") and len(changed) == len(files[name]) and rng.random() < 0.5
    _try(_with_tar(files, name[:-4], bytes(changed)) if vouched else files | {name: bytes(changed)})


def _with_tar(files: dict[str, bytes], shard: str, tar: bytes) -> dict[str, bytes]:
    """With this tar and digests that vouch for it, in the receipt and in dataset.json."""
    receipt = json.loads(files[f"{shard}.json"])
    _, receipt["sha256"], blocks = digests(io.BytesIO(tar))
    receipt["blocks"] = [blocks[i : i + 8].hex() for i in range(0, len(blocks), 8)]
    return _resealed(files, {f"{shard}.json": _dumped(receipt)}) | {f"{shard}.tar": tar}
