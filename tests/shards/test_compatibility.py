"""The tars as other people's readers see them: plain webdataset and Hugging Face datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from shards import Example, write_shard
from tests.shards.made import example

ARRAYS = ("stems", "mixes", "levels")
Load = Callable[[list[str], bool], list[dict[str, Any]]]


@pytest.fixture
def tars(tmp_path: Path) -> tuple[list[str], list[Example]]:
    """Two shards; examples without mixes come first, last, and beyond the five that Hugging Face infers types from."""
    counts = [0, 2, 1, 3, 0, 1, 0, 2]
    examples = [example(f"song-{i}", mixes=count, frames=9 + i) for i, count in enumerate(counts)]
    for number, part in enumerate((examples[:6], examples[6:])):
        write_shard(tmp_path / f"train-{number:06d}.tar", part, {})
    return [str(tmp_path / f"train-{number:06d}.tar") for number in (0, 1)], examples


# webdataset leaves closing its tars to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_all_four_members(tars: tuple[list[str], list[Example]]) -> None:
    paths, examples = tars
    read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=True).decode())
    assert [item["__key__"] for item in read] == [item.id for item in examples]
    for item, wanted in zip(read, examples, strict=True):
        assert {key for key in item if not key.startswith("__")} == {"json", "stems.npy", "mixes.npy", "levels.npy"}
        assert item["json"] == wanted.meta
        for name in ARRAYS:
            assert item[f"{name}.npy"].dtype == np.float16
            np.testing.assert_array_equal(item[f"{name}.npy"], getattr(wanted, name))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Reads tars with Hugging Face datasets, from nothing but the tars."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load(paths: list[str], streaming: bool) -> list[dict[str, Any]]:
        cache = str(tmp_path / "cache")
        return list(
            datasets.load_dataset("webdataset", data_files=paths, split="train", streaming=streaming, cache_dir=cache)
        )

    return load


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_them(tars: tuple[list[str], list[Example]], streaming: bool, load: Load) -> None:
    paths, examples = tars
    read = load(paths, streaming)
    assert [item["__key__"] for item in read] == [item.id for item in examples]
    for item, wanted in zip(read, examples, strict=True):
        assert item["json"] == wanted.meta
        assert [type(gain) for gain in item["json"]["gains_db"]] == [float] * len(wanted.meta["gains_db"])
        for name in ARRAYS:
            array = np.asarray(item[f"{name}.npy"], dtype=np.float16).reshape(getattr(wanted, name).shape)
            np.testing.assert_array_equal(array, getattr(wanted, name))


def written(folder: Path, *shards: list[int]) -> list[str]:
    """Shards of examples with so many mixes."""
    paths = [folder / f"train-{number:06d}.tar" for number in range(len(shards))]
    for number, (path, counts) in enumerate(zip(paths, shards, strict=True)):
        write_shard(path, [example(f"song-{number}-{i}", mixes=count) for i, count in enumerate(counts)], {})
    return [str(path) for path in paths]


@pytest.mark.parametrize("shards", [([0, 0, 0, 0, 0, 2], [1]), ([0, 0], [2])], ids=["sixth", "second shard"])
def test_hugging_face_infers_types_from_the_first_five_of_the_first_shard(
    shards: tuple[list[int], ...], tmp_path: Path, load: Load
) -> None:
    """Where none of them has mixes but a later example does, only streaming reads them."""
    paths, counts = written(tmp_path, *shards), [count for shard in shards for count in shard]
    with pytest.raises(Exception, match="generating the dataset"):
        load(paths, False)
    assert [len(item["mixes.npy"]) for item in load(paths, True)] == counts


@pytest.mark.parametrize(
    "shards", [([2, 0, 0, 0, 0, 0, 1], [0, 0, 3]), ([0, 0], [0])], ids=["one first", "none at all"]
)
def test_one_of_the_first_five_with_mixes_is_enough(shards: tuple[list[int], ...], tmp_path: Path, load: Load) -> None:
    paths, counts = written(tmp_path, *shards), [count for shard in shards for count in shard]
    for streaming in (False, True):
        assert [len(item["mixes.npy"]) for item in load(paths, streaming)] == counts
