"""The peers, each as its own source recommends for random access, and the best of what was tried.

Each is a function (folder, size, workers, crops) -> endless iterator of batches as the ceiling and ours give them.

- litData, windows: an item a stream, in the layout made for windows of long arrays (TemporalArrayLoader), of which
  `read_window` maps and copies what is asked for: two windows a pair. It keeps four chunks mapped: at 512 MB each, all
  of this dataset, its best case; at its default of 64 MB it maps again and again, as it must with more data.
- litData, items: the same items whole, `dataset[i]`, as before there were windows; in chunks of 64 MB.
- MosaicML: an item is CROP frames of a stream; a crop at any start lies in two of them. An item a stream reads twenty
  times as much, and was slower.
- webdataset: our tars as they are, from beginning to end, an example decoded whole and `crops` pairs cut from it. No
  shuffle buffer. With crops above 1 a batch's pairs are not drawn independently: less than what the others give, but
  that is how people use it.

In worker processes (torch's DataLoader) whole batches are made, crops copied straight into the batch's two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from tests.bench.loading.contenders import SEED, Pool, draw, new_batch
from tests.bench.loading.made import BATCH, CROP, Batch, Size

Crop = Callable[[int, int], NDArray[np.float16]]  # (stream, start) -> (CROP, DIM)
Tensors = tuple[torch.Tensor, torch.Tensor]


class _Batches(Dataset[Tensors]):
    """Endless; an item is asked for by the positions of a whole batch."""

    def __init__(self, size: Size, crop: Crop, give: Callable[[], Batch]) -> None:
        self.size, self.crop, self.give = size, crop, give

    def __len__(self) -> int:
        return 1 << 40

    def __getitems__(self, positions: list[int]) -> Tensors:
        mixes, targets = self.give()
        draws = draw(self.size, BATCH, np.random.default_rng([SEED, positions[0]]))
        for i, (number, mix, stem, start) in enumerate(draws):
            stream = number * self.size.rows
            mixes[i] = self.crop(stream + self.size.stems + mix, start)
            targets[i] = self.crop(stream + stem, start)
        return torch.from_numpy(mixes), torch.from_numpy(targets)


def _as_it_is(batch: Any) -> Any:
    return batch


def _load(size: Size, crop: Crop, workers: int, again: bool = True) -> Iterator[Batch]:
    """`again`: whether batches' arrays are used again; what workers make moves to shared memory anyway."""
    batches = _Batches(size, crop, Pool() if again and not workers else new_batch)
    return iter(DataLoader(batches, BATCH, num_workers=workers, collate_fn=_as_it_is))


def _litdata(folder: Path) -> Any:
    from litdata import StreamingDataset, TemporalArrayLoader

    return StreamingDataset(str(folder), item_loader=TemporalArrayLoader())


def _windows(folder: Path, size: Size, workers: int) -> Iterator[Batch]:
    dataset = _litdata(folder)
    return _load(size, lambda stream, start: dataset.read_window(stream, start, CROP)["latents"], workers)


def litdata_windows(folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    return _windows(folder / "litdata", size, workers)


def litdata_windows_64mb(folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    return _windows(folder / "litdata-64mb", size, workers)


def litdata_items(folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    dataset = _litdata(folder / "litdata-64mb")
    # Freeing large arrays is what tells glibc to keep memory for the items of 0.7 MB: five times as quick without Pool.
    return _load(size, lambda stream, start: dataset[stream]["latents"][start : start + CROP], workers, again=False)


def mosaicml(folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mosaicml"), batch_size=BATCH)

    def crop(stream: int, start: int) -> NDArray[np.float16]:
        block, offset = divmod(start, CROP)
        first = stream * size.blocks + block
        if not offset:
            return dataset[first]["latents"]
        return np.concatenate([dataset[first]["latents"][offset:], dataset[first + 1]["latents"][:offset]])

    return _load(size, crop, workers)


class _Sequential(IterableDataset[Tensors]):
    """Endless; batches over the ends of examples and epochs."""

    def __init__(self, examples: Any, size: Size, crops: int, workers: int) -> None:
        self.examples, self.size, self.crops = examples, size, crops
        self.give = new_batch if workers else Pool()

    def __iter__(self) -> Iterator[Tensors]:
        pairs = self._pairs()
        while True:
            mixes, targets = self.give()
            for i, (mix, target) in enumerate(islice(pairs, BATCH)):
                mixes[i], targets[i] = mix, target
            yield torch.from_numpy(mixes), torch.from_numpy(targets)

    def _pairs(self) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float16]]]:
        worker = get_worker_info()
        rng = np.random.default_rng([SEED, worker.id if worker else 0])
        for example in chain.from_iterable(repeat(self.examples)):
            for _, mix, stem, start in draw(self.size, self.crops, rng):
                window = slice(start, start + CROP)
                yield example["mixes.npy"][mix, window], example["stems.npy"][stem, window]


def webdataset(folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    import webdataset as wds

    tars = sorted(map(str, (folder / "ours").glob("*.tar")))
    examples = wds.WebDataset(tars, shardshuffle=False).decode()
    return iter(DataLoader(_Sequential(examples, size, crops, workers), batch_size=None, num_workers=workers))
