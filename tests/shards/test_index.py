import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from shards import ShardError, shard_names, shard_of, write_index, write_shard
from tests.shards.made import DIM, HEADER, example


def test_names_and_places() -> None:
    assert shard_names("train", 2) == ["train-000000.tar", "train-000001.tar"]
    assert shard_names("test", 0) == []
    places = [shard_of(f"track{i:05d}", 7) for i in range(7000)]
    assert min(np.bincount(places, minlength=7)) > 850 and max(places) == 6
    assert shard_of("track00001", 7) == int(hashlib.sha256(b"track00001").hexdigest()[:16], 16) % 7


def test_dataset_json_sums_up_the_receipts(tmp_path: Path) -> None:
    parts = [[example("a"), example("b", mixes=0)], [example("c", stems=5, mixes=7, frames=30)], []]
    names = shard_names("train", 3)
    receipts = [write_shard(tmp_path / name, part, {}) for name, part in zip(names, parts, strict=True)]
    (tmp_path / ".train-000000.tar.4711.part").touch()
    index = write_index(str(tmp_path), HEADER, {"train": names, "test": []})
    written = (tmp_path / "dataset.json").read_bytes()
    head, _, tail = written.rpartition(b",\n")
    assert index | {"sha256": hashlib.sha256(head).hexdigest()} == json.loads(written) and tail.count(b"\n") == 2
    assert list(index) == ["format", *HEADER, "splits", "statistics"]
    train = index["splits"]["train"]
    assert [listed["name"] for listed in train["shards"]] == names[:2]
    assert [listed["sha256"] for listed in train["shards"]] == [receipt.sha256 for receipt in receipts[:2]]
    receipt_bytes = (tmp_path / "train-000000.json").read_bytes()
    assert train["shards"][0]["receipt_sha256"] == hashlib.sha256(receipt_bytes).hexdigest()
    assert (train["examples"], train["stems"], train["mixes"]) == (3, 11, 9)
    assert train["frames"] == 8 * 12 + 12 * 30
    assert index["splits"]["test"] == {"shards": [], "examples": 0, "stems": 0, "mixes": 0, "frames": 0}
    assert list(index["statistics"]) == ["train"]
    mixes = np.concatenate([item.mixes.reshape(-1, DIM) for part in parts for item in part]).astype(np.float64)
    mix = index["statistics"]["train"]["mix"]
    assert mix["frames"] == len(mixes)
    np.testing.assert_allclose(mix["mean"], mixes.mean(0), rtol=1e-10)
    np.testing.assert_allclose(mix["std"], mixes.std(0), rtol=1e-10)
    assert not list(tmp_path.glob(".*"))


def test_no_mixes_at_all_is_no_nan(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [example("a", mixes=0)], {})
    index = write_index(tmp_path, HEADER, {"train": ["train-000000.tar"]})
    assert index["statistics"]["train"]["mix"] == {"frames": 0, "mean": [0.0] * DIM, "std": [0.0] * DIM}


def test_an_id_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [example("a")], {})
    write_shard(tmp_path / "test-000000.tar", [example("a", split="test")], {})
    with pytest.raises(ShardError, match=r"id a is in train-000000\.tar and in test-000000\.tar"):
        write_index(tmp_path, HEADER, {"train": ["train-000000.tar"], "test": ["test-000000.tar"]})
    assert not (tmp_path / "dataset.json").exists()


def test_what_does_not_fit_the_header_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [example("a")], {})
    with pytest.raises(ShardError, match=r"a has latents of dim 8, but codec\.dim is 64"):
        write_index(tmp_path, HEADER | {"codec": {"dim": 64}}, {"train": ["train-000000.tar"]})
    with pytest.raises(ShardError, match=r"dataset\.json lacks config, counts"):
        write_index(tmp_path, {key: HEADER[key] for key in HEADER if key[:2] != "co" or key == "codec"}, {})


def test_a_shard_without_receipt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"train-000000\.json is missing"):
        write_index(tmp_path, HEADER, {"train": ["train-000000.tar"]})
