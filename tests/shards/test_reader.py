import json
import mmap
from pathlib import Path

import numpy as np
import pytest

import shards
from shards import ShardError
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
    whole = json.loads(path.read_text())
    for change, message in (
        ({"format": 3}, "has format 3; this program reads 2"),
        ({"splits": {"train": {}}}, "no valid list of shards"),
        ({"splits": {"train": {"shards": [{"name": "x"}]}}}, "no valid list of shards"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(ShardError, match=message):
            shards.open(out)
    path.write_text("{}")
    with pytest.raises(ShardError, match=r"lacks format, generation, plan, codec"):
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


def test_a_member_that_is_not_where_the_receipt_says(out: Path) -> None:
    path = _folder(out) / "train-000000.tar"
    path.write_bytes(path.read_bytes()[512:] + bytes(512))
    record = shards.open(out)[1]
    with pytest.raises(ShardError, match=r"train-000000\.tar: member a-1\.stems\.npy is not what its receipt says"):
        record["stems"]
    with pytest.raises(ShardError, match=r"member a-1\.json is not what its receipt says"):
        _ = record.meta
