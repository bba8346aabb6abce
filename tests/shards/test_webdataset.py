"""The plain webdataset pipeline that the README shows: pairs cut from whole examples, tars read from end to end."""

import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from torch.utils.data import DataLoader

import shards
from tests.shards.made import DIM, HEADER, example

CROP = 4
Pair = tuple[np.ndarray, np.ndarray]

pytestmark = [
    # webdataset leaves closing its tars to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # torch's workers are forked; Python 3.12 warns of that where there are threads
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def tars(dataset: shards.Dataset) -> list[str]:
    return [str(shard) for shard in dataset.shards]


# as in the README, which hands `pairs` itself to the pipeline and batches what comes out
def pairs(examples: Iterator[dict[str, Any]], crops: int = 16, crop: int = 128) -> Iterator[Pair]:
    rng = np.random.default_rng()  # anew in each worker and epoch
    for each in examples:
        stems, mixes = each["stems.npy"], each["mixes.npy"]
        members = each["json"]["members"][len(stems) :]
        ways = [(mix, stem) for mix, row in enumerate(members) for stem in range(len(stems)) if stem not in row]
        for _ in range(crops if ways and stems.shape[1] >= crop else 0):
            mix, stem = ways[rng.integers(len(ways))]
            start = rng.integers(stems.shape[1] - crop + 1)
            yield mixes[mix, start : start + crop].copy(), stems[stem, start : start + crop].copy()


def pipeline(paths: list[str], crops: int) -> wds.DataPipeline:
    return wds.DataPipeline(
        wds.SimpleShardList(paths),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.decode(),
        partial(pairs, crops=crops, crop=CROP),
        wds.shuffle(1000),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> shards.Dataset:
    """Six shards of 3, 1, 2, 0, 1 and 2 examples; of their three stems two are in each mix, the third is its target."""
    names = shards.shard_names("train", 6)
    for number, (name, count) in enumerate(zip(names, (3, 1, 2, 0, 1, 2), strict=True)):
        made = [example(f"song-{number}-{i}", frames=9 + i) for i in range(count)]
        shards.write_shard(tmp_path / name, made, {})
    shards.write_index(tmp_path, HEADER, {"train": names})
    return shards.open(tmp_path)


def places(stream: np.ndarray, crop: np.ndarray) -> list[int]:
    return [at for at in range(len(stream) - len(crop) + 1) if np.array_equal(stream[at : at + len(crop)], crop)]


def owner(dataset: shards.Dataset, pair: Pair) -> str:
    """The id of the example of which the pair is a mix and the third stem, cut alike."""
    for record in dataset:
        stems, mixes = np.asarray(record["stems"]), np.asarray(record["mixes"])
        starts = places(stems[2], pair[1])
        if starts and any(places(row, pair[0]) == starts for row in mixes):
            return record.id
    raise AssertionError("no example has this pair")


def test_pairs_are_slices_of_a_mix_and_of_a_stem_that_is_not_in_it(dataset: shards.Dataset) -> None:
    read = list(pipeline(tars(dataset), crops=5))
    assert Counter(owner(dataset, pair) for pair in read) == dict.fromkeys(dataset.ids, 5)
    assert {(mix.shape, target.shape) for mix, target in read} == {((CROP, DIM), (CROP, DIM))}


def test_an_example_without_mixes_or_shorter_than_a_crop_gives_no_pairs(tmp_path: Path) -> None:
    made = [example("no-mixes", mixes=0), example("short", frames=CROP - 1), example("just", frames=CROP)]
    shards.write_shard(tmp_path / "train-000000.tar", made, {})
    read = list(pipeline([str(tmp_path / "train-000000.tar")], crops=2))
    assert len(read) == 2
    for _, target in read:
        np.testing.assert_array_equal(target, made[2].stems[2])


def test_two_nodes_of_two_workers_read_each_example_once(
    dataset: shards.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    read = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        loaded = DataLoader(pipeline(tars(dataset), crops=1), batch_size=None, num_workers=2)
        read.append([owner(dataset, tuple(map(np.asarray, pair))) for pair in loaded])
    assert all(read)
    assert sorted(read[0] + read[1]) == sorted(dataset.ids)


def test_ranks_get_unequal_shares_unless_shards_are_resampled(
    dataset: shards.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why training uses shards.Loader: each example once, or equal steps, but not both."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    counts, resampled = [], []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        counts.append(len(list(pipeline(tars(dataset), crops=1))))
        endless = pipeline(tars(dataset), crops=1)
        endless.pipeline[:3] = [wds.ResampledShards(tars(dataset), seed=rank)]
        resampled.append(len(list(endless.with_epoch(7))))
    assert counts == [7, 2]
    assert resampled == [7, 7]


def test_more_readers_than_shards_leave_some_with_nothing(
    dataset: shards.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    counts = []
    for rank in range(8):
        monkeypatch.setenv("RANK", str(rank))
        counts.append(len(list(pipeline(tars(dataset), crops=1))))
    assert counts == [3, 1, 2, 1, 2, 0, 0, 0]


def test_a_shard_that_no_example_fell_into_has_no_tar(dataset: shards.Dataset) -> None:
    every = [str(Path(str(dataset.place)) / name) for name in shards.shard_names("train", 6)]
    assert set(every) - set(tars(dataset)) == {every[3]}
    with pytest.raises(FileNotFoundError):
        list(pipeline(every, crops=1))


class _Counted(io.FileIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_whole_tars_are_read_whatever_is_cut_from_them(
    dataset: shards.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read amplification that the README states: bytes read for each byte of the pairs."""
    opened: list[_Counted] = []
    monkeypatch.setattr("webdataset.tariterators.gopen.gopen", lambda url: opened.append(_Counted(url)) or opened[-1])
    payload = sum(
        size for shard in dataset.shards for each in shard.receipt.examples for _, size in each.members.values()
    )
    for crops in (1, 4, 16):
        used = sum(mix.nbytes + target.nbytes for mix, target in pipeline(tars(dataset), crops))
        read = sum(file.bytes_read for file in opened)
        for file in opened:  # webdataset leaves them open
            file.close()
        opened.clear()
        assert used == len(dataset) * crops * 2 * CROP * DIM * 2
        assert payload < read <= sum(Path(str(shard)).stat().st_size for shard in dataset.shards)
