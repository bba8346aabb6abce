"""The tars as other people's readers see them: plain webdataset and Hugging Face datasets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from shards import Example, write_shard
from tests.shards.made import example

ARRAYS = ("stems", "mixes", "levels")


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


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_them(
    tars: tuple[list[str], list[Example]], streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    paths, examples = tars
    loaded = datasets.load_dataset(
        "webdataset", data_files=paths, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    read: list[dict[str, Any]] = list(loaded)
    assert [item["__key__"] for item in read] == [item.id for item in examples]
    for item, wanted in zip(read, examples, strict=True):
        assert item["json"] == wanted.meta
        assert [type(gain) for gain in item["json"]["gains_db"]] == [float] * len(wanted.meta["gains_db"])
        for name in ARRAYS:
            array = np.asarray(item[f"{name}.npy"], dtype=np.float16).reshape(getattr(wanted, name).shape)
            np.testing.assert_array_equal(array, getattr(wanted, name))
