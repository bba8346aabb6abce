import hashlib
import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import shards
from shards import ShardError, write_index, write_shard
from shards.index import seal, unseal
from tests.shards.made import DIM, HEADER, dataset, example


@pytest.fixture
def out(tmp_path: Path) -> Path:
    dataset(tmp_path / "out")
    return tmp_path / "out"


def _folder(out: Path) -> Path:
    return out / "generations" / HEADER["generation"]


def test_round_trip(tmp_path: Path) -> None:
    examples = dataset(tmp_path)
    opened = shards.open(tmp_path)
    assert len(opened) == len(examples) == 6
    assert opened.ids == tuple(item.id for item in examples)
    for record, wanted in zip(opened, examples, strict=True):
        assert (record.id, record.meta, record.sources) == (wanted.id, wanted.meta, wanted.sources)
        for name in ("stems", "mixes", "levels"):
            assert record[name].dtype == np.float16
            np.testing.assert_array_equal(record[name], getattr(wanted, name))
    assert opened[-1].id == "c1"
    assert opened[1]["mixes"].shape == (0, 7, DIM)
    with pytest.raises(IndexError):
        opened[6]


def test_a_slice_is_a_view_of_the_memory_map(tmp_path: Path) -> None:
    examples = dataset(tmp_path)
    record = shards.open(tmp_path)[3]
    crop = record["mixes"][2, 5:11]
    np.testing.assert_array_equal(crop, examples[3].mixes[2, 5:11])
    assert crop.flags.c_contiguous and not crop.flags.writeable
    base = crop
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_opens_out_or_a_generation_as_text_or_path(out: Path) -> None:
    assert shards.open(str(out)).ids == shards.open(_folder(out)).ids
    assert shards.open(out).codec["dim"] == DIM
    assert shards.open(out).classes == ["Piano", "Bass"]


def test_a_split_is_a_dataset(out: Path) -> None:
    opened = shards.open(out)
    assert list(opened.splits) == ["train", "validation", "test"]
    assert opened.split("test").ids == ("c0", "c1")
    assert opened.split("test")[1].id == "c1"
    assert len(opened.split("validation")) == 0 and opened.split("validation").ids == ()
    with pytest.raises(ShardError, match="no split 'valid'; it has train, validation, test"):
        opened.split("valid")


@pytest.mark.parametrize("role", ["stem", "mix"])
def test_moments_are_the_training_splits(tmp_path: Path, role: str) -> None:
    train = [item for item in dataset(tmp_path) if item.meta["split"] == "train"]
    streams = [item.stems if role == "stem" else item.mixes for item in train]
    frames = np.concatenate([stream.reshape(-1, DIM) for stream in streams]).astype(np.float64)
    for opened in (shards.open(tmp_path), shards.open(tmp_path).split("test")):
        moments = opened.moments(role)
        assert moments.frames == len(frames)
        assert moments.mean.dtype == moments.std.dtype == np.float32
        np.testing.assert_allclose(moments.mean, frames.mean(0), rtol=1e-6)
        np.testing.assert_allclose(moments.std, frames.std(0), rtol=1e-6)
    with pytest.raises(ShardError, match=f"no {role} frames in split 'validation'"):
        opened.moments(role, "validation")


def test_a_channel_that_never_changes_has_std_1(tmp_path: Path) -> None:
    still = example("a", frames=400)
    still.stems[..., 0], still.stems[..., 1] = 0.1, 0.0
    shards.write_shard(tmp_path / "train-000000.tar", [still], {})
    shards.write_index(tmp_path, HEADER, {"train": ["train-000000.tar"]})
    moments = shards.open(tmp_path).moments("stem")
    assert moments.std[0] == moments.std[1] == 1
    assert moments.std[2] == pytest.approx(2.0, abs=0.2)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"nowhere is not a folder; give the --out of a `prep build`"):
        shards.open(tmp_path / "nowhere")


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="is not a dataset"):
        shards.open(tmp_path)


def test_a_build_that_did_not_end(out: Path) -> None:
    (_folder(out) / "dataset.json").unlink()
    with pytest.raises(ShardError, match="not complete; run the same `prep build` again"):
        shards.open(out)
    with pytest.raises(ShardError, match=r"did not end \(no dataset\.json\); run the same `prep build` again"):
        shards.open(_folder(out))
    (out / "current").unlink()
    with pytest.raises(ShardError, match=r"did not end \(no dataset\.json\); run the same `prep build` again"):
        shards.open(out)


@pytest.mark.parametrize("text", ["nobody", "../../elsewhere", "", "a\nb"])
def test_a_wrong_current(out: Path, text: str) -> None:
    (out / "current").write_text(text)
    with pytest.raises(ShardError, match=r"current.*run the same `prep build` again"):
        shards.open(out)


@pytest.mark.parametrize("size", [0, 1, 300])
def test_a_truncated_dataset_json(out: Path, size: int) -> None:
    path = _folder(out) / "dataset.json"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardError, match=r"dataset\.json is not a whole JSON object"):
        shards.open(out)


def test_a_dataset_json_of_another_shape(out: Path) -> None:
    path = _folder(out) / "dataset.json"
    whole = unseal(path.read_bytes(), "")
    listed = whole["splits"]["train"]["shards"][0]
    for change, message in (
        ({"format": 2}, "has format 2; this program reads 3"),
        ({"splits": {"train": {}}}, "no valid list of shards"),
        *(
            ({"splits": {"train": {"shards": [listed | wrong]}}}, "no valid list of shards")
            for wrong in ({"name": "../x.tar"}, {"name": "x"}, {"bytes": -1}, {"examples": 0}, {"sha256": "/etc"})
        ),
    ):
        path.write_bytes(seal(whole | change))
        with pytest.raises(ShardError, match=message):
            shards.open(out)
    path.write_text("{}")
    with pytest.raises(ShardError, match=r"lacks format, generation, plan, codec"):
        shards.open(out)
    data = seal(whole)
    for changed in (data.replace(b'"Bass"', b'"Boss"'), data + b" ", data.replace(b"\n ", b"\n  ", 1)):
        path.write_bytes(changed)
        with pytest.raises(ShardError, match=r"dataset\.json is not as it was written"):
            shards.open(out)


def test_a_tar_of_another_size(out: Path) -> None:
    path = _folder(out) / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(
        ShardError, match=r"train-000001\.tar has 9728 bytes, its receipt says 10240.*`prep build` again"
    ):
        shards.open(out)
    path.unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar cannot be read \(No such file"):
        shards.open(out)


def test_a_damaged_receipt_is_told_when_its_shard_is_touched(out: Path) -> None:
    path = _folder(out) / "train-000000.json"
    whole = path.read_bytes()
    opened = shards.open(out)
    path.write_bytes(whole[:100])
    with pytest.raises(ShardError, match=r"train-000000\.json is not a whole JSON object"):
        opened[0]
    path.write_bytes(whole.replace(b'"made"', b'"fake"'))
    with pytest.raises(ShardError, match=r"train-000000\.json is not the receipt that dataset\.json lists"):
        opened[0]
    path.write_bytes((_folder(out) / "train-000001.json").read_bytes())
    with pytest.raises(ShardError, match=r"is the receipt of train-000001\.tar"):
        opened[0]
    path.write_bytes(whole)
    assert opened[0].id == "a-0"


def test_a_flipped_bit_is_found_where_it_is_touched(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [example("a", frames=30_000)], {})
    write_index(tmp_path, HEADER, {"train": ["train-000000.tar"]})
    path = tmp_path / "train-000000.tar"
    data = bytearray(path.read_bytes())
    whole = shards.open(tmp_path)[0]["stems"][:].copy()
    data[700_000] ^= 1
    path.write_bytes(data)
    stems = shards.open(tmp_path)[0]["stems"]
    np.testing.assert_array_equal(stems[0], whole[0])
    np.testing.assert_array_equal(stems[2, 100:200], whole[2, 100:200])
    at = next(iter(np.flatnonzero(shards.open(tmp_path, verify=False)[0]["stems"][1] != whole[1])))
    assert stems[1, : at // DIM - 5000].shape  # other blocks of the same stream
    told = r"train-000000\.tar: block 10 is not what its receipt says, in a\.stems\.npy stream 1; `prep verify`"
    touching: list[Any] = [
        (1, slice(at // DIM, at // DIM + 1)), 1, (-2, slice(None)), slice(1, 2), (slice(None), at // DIM),
        (slice(None, None, -1), slice(at // DIM, None, 3)), ..., ([0, 1], 0), (1, at // DIM, 0),
    ]  # fmt: skip
    for key in touching:
        stems = shards.open(tmp_path)[0]["stems"]
        for _ in range(2):  # a fault that was told once stays one
            with pytest.raises(ShardError, match=told):
                stems[key]
    with pytest.raises(ShardError, match=told):
        np.asarray(stems)
    with pytest.raises(ShardError, match=told):
        list(stems)


def test_a_flipped_bit_in_the_json(out: Path) -> None:
    path = _folder(out) / "train-000000.tar"
    path.write_bytes(path.read_bytes().replace(b'"CC0"', b'"CC1"', 1))
    with pytest.raises(ShardError, match=r"block 0 is not what its receipt says, in a-0\.json, a-0\.stems\.npy"):
        _ = shards.open(out)[0].meta
    assert shards.open(out, verify=False)[0].meta["licence"] == "CC1"


def test_each_block_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "train-000000.tar", [example("a", frames=30_000)], {})
    write_index(tmp_path, HEADER, {"train": ["train-000000.tar"]})
    opened, hashed = shards.open(tmp_path), []
    stems = opened[0]["stems"]
    sha256 = hashlib.sha256
    monkeypatch.setattr("shards.shard.hashlib.sha256", lambda block: hashed.append(len(block)) or sha256(block))
    stems[0, 10_000:10_100]
    assert hashed == [65536]
    stems[0, 10_100:10_200], opened.split("train")[0]["stems"][0, 10_000:10_100]
    assert hashed == [65536]
    stems[0], opened[0]["stems"][0]
    assert len(hashed) == -(-30_000 * DIM * 2 // 65536)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_is_sliced_is_what_numpy_slices(data: st.DataObject) -> None:
    wanted = example("a", stems=4, frames=20).stems
    key = data.draw(basic_indices(wanted.shape, allow_newaxis=True, allow_ellipsis=True))
    with TemporaryDirectory() as folder:
        write_shard(Path(folder) / "train-000000.tar", [example("a", stems=4, frames=20)], {})
        write_index(Path(folder), HEADER, {"train": ["train-000000.tar"]})
        member = shards.open(folder)[0]["stems"]
        np.testing.assert_array_equal(member[key], wanted[key])
        assert np.asarray(member).dtype == np.float16 and np.asarray(member, np.float32).dtype == np.float32


def test_names_that_no_example_has(out: Path) -> None:
    with pytest.raises(KeyError, match="'stem'; an example has stems, mixes and levels"):
        shards.open(out)[0]["stem"]
    with pytest.raises(IndexError):
        shards.open(out)[0]["stems"][3, 0:1]
