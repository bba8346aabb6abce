"""What somebody could put into a dataset on purpose: nothing is run, nothing leads out of a folder, no memory goes."""

import ast
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from shards import ShardError
from shards.index import seal, unseal
from shards.receipt import BLOCK_BYTES
from tests.shards.made import HEADER, dataset
from tests.test_house import ROOT, imports

FOLDER = Path("generations") / HEADER["generation"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dataset(tmp_path)
    return tmp_path / FOLDER


def _with_receipt(folder: Path, change: Any, shard: str = "train-000000") -> None:
    """Changes a receipt in place, and has dataset.json vouch for it."""
    path, index_path = folder / f"{shard}.json", folder / "dataset.json"
    receipt = json.loads(path.read_bytes())
    change(receipt)
    path.write_text(json.dumps(receipt))
    index = unseal(index_path.read_bytes(), "")
    for listed in index["splits"]["train"]["shards"]:
        if listed["name"] == f"{shard}.tar":
            listed["receipt_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    index_path.write_bytes(seal(index))


def test_nothing_is_unpickled() -> None:
    """Nor does numpy or torch load a file: arrays are views of bytes whose shape stands in the receipt."""
    banned = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml")
    sources = sorted((ROOT / "shards").rglob("*.py"))
    assert len(sources) > 8
    for path in sources:
        source = path.read_text()
        assert not [name for name in imports(source, "shards") if name.split(".")[0] in banned], path
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        loaders = {
            "load",
            "fromfile",
            "read_array",
            "open_memmap",
            "eval",
            "exec",
            "loadtxt",
            "genfromtxt",
            "unsafe_load",
        }
        names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
        assert not names & loaders, path


def test_a_pickle_in_the_place_of_an_array_is_bytes(folder: Path) -> None:
    """A .npy header that says `object`, a payload that would make a file; receipt and dataset.json vouch for them."""

    class Canary:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "opened"),)

    forged = io.BytesIO()
    np.save(forged, np.array([Canary()], dtype=object), allow_pickle=True)
    assert b"'|O'" in forged.getvalue() and pickle.dumps(Canary()) != b""
    tar = folder / "train-000000.tar"
    data = bytearray(tar.read_bytes())

    def forge(receipt: dict[str, Any]) -> None:
        offset, size = receipt["examples"][0]["members"]["stems.npy"]
        data[offset : offset + size] = forged.getvalue().ljust(size, b"\0")[:size]
        receipt["blocks"] = [
            hashlib.sha256(data[i : i + BLOCK_BYTES]).digest()[:8].hex() for i in range(0, len(data), BLOCK_BYTES)
        ]

    _with_receipt(folder, forge)
    tar.write_bytes(data)
    for verify in (True, False):
        stems = shards.open(folder, verify=verify)[0]["stems"]
        assert np.asarray(stems).dtype == np.float16 and stems.shape == (3, 12, 8)
    assert not (folder / "opened").exists()
    with pytest.raises(OSError, match="exists"):  # the canary sings where somebody does unpickle it
        np.load(io.BytesIO(forged.getvalue()), allow_pickle=True), pickle.loads(pickle.dumps(Canary()))


@pytest.mark.parametrize(
    "name",
    ["../x.tar", "/etc/x-000000.tar", "a/../x-000000.tar", "x-000000.tar\0", "\ud800-000000.tar", "..", "",
     "X-000000.tar", "x-000000.tar\n", "x" * 300 + "-000000.tar", "test-000000.tar"],
)  # fmt: skip
def test_no_shard_lies_outside_the_folder(folder: Path, name: str) -> None:
    """Nor is one listed twice."""
    path = folder / "dataset.json"
    index = unseal(path.read_bytes(), "")
    index["splits"]["train"]["shards"][0]["name"] = name
    text = json.dumps({key: value for key, value in index.items() if key != "sha256"}, indent=1).encode()[:-2]
    path.write_bytes(text + b',\n "sha256": "%s"\n}\n' % hashlib.sha256(text).hexdigest().encode())
    with pytest.raises(ShardError, match="no valid list of shards"):
        shards.open(folder)


@pytest.mark.parametrize("name", ["../a", "a/b", "a.b", "A", "", "a\0", "a" * 81, "a\n", 7, None])
def test_no_id_leads_anywhere(folder: Path, name: Any) -> None:
    def rename(receipt: dict[str, Any]) -> None:
        receipt["examples"][0]["id"] = name

    _with_receipt(folder, rename)
    if name in (7, None):  # str() of it is a lawful id, but not the one that the tar has
        with pytest.raises(ShardError):
            _ = shards.open(folder)[0].meta
        return
    with pytest.raises(ShardError, match="does not match"):
        shards.open(folder)[0]


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """A tar may be a link to another disk, as people have it; its bytes are held to the receipt all the same."""
    there = tmp_path / "elsewhere.tar"
    (folder / "train-000000.tar").rename(there)
    (folder / "train-000000.tar").symlink_to(there)
    assert [np.asarray(record["stems"]).shape[0] for record in shards.open(folder)] == [3, 3, 2, 5, 3, 3]
    there.write_bytes(there.read_bytes().replace(b'"CC0"', b'"CC1"', 1))
    with pytest.raises(ShardError, match=r"train-000000\.tar: block 0"):
        _ = shards.open(folder)[0].meta


SHAPES = [
    [2**40, 12, 8], [0, 2**40, 8], [0, 2**70, 8], [3, 2**40, 2**40], [2**63, 2**63, 2**63], [-1, -12, 8], [3, -12, -8],
    [0, 0, 0], [3, 12, 8, 1], [36, 8], [], [3.7e300, 1, 1],
]  # fmt: skip
ABSURD = """
import json, resource, sys
import numpy as np
import shards
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) << 20,) * 2)
try:
    for record in shards.open(sys.argv[1]):
        for name in ("stems", "mixes", "levels"):
            np.asarray(record[name])
except shards.ShardError as error:
    print(error)
"""


@pytest.mark.parametrize("member", ["stems.npy", "mixes.npy", "levels.npy"])
def test_absurd_shapes_are_refused_before_memory_is_taken(folder: Path, member: str) -> None:
    for shape in SHAPES:
        whole = {path: path.read_bytes() for path in folder.iterdir()}

        def absurd(receipt: dict[str, Any], shape: list[Any] = shape) -> None:
            receipt["examples"][1]["shapes"][member] = shape

        _with_receipt(folder, absurd)
        with pytest.raises(ShardError, match=r"train-000000\.json is not a valid receipt"):
            shards.open(folder)[0]
        for path, data in whole.items():
            path.write_bytes(data)


def test_absurd_files_are_refused_before_memory_is_taken(folder: Path) -> None:
    """A sparse file of a terabyte for each in turn, in a process that may take 2 GB."""
    for name in ("dataset.json", "train-000000.json", "train-000000.tar"):
        whole = (folder / name).read_bytes()
        os.truncate(folder / name, 1 << 40)
        done = subprocess.run(
            [sys.executable, "-c", ABSURD, folder, "2048"], capture_output=True, text=True, check=True
        )
        assert name in done.stdout and done.stdout.count("\n") == 1, done.stdout
        (folder / name).write_bytes(whole)
    done = subprocess.run([sys.executable, "-c", ABSURD, folder, "2048"], capture_output=True, text=True, check=True)
    assert done.stdout == ""
