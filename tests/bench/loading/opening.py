"""How long it takes to open a dataset of many shards: `python -m tests.bench.loading.opening FOLDER SHARDS`.

The first shard is real; the others have its receipt under names of their own and a sparse file for a tar. Timed are
`shards.open`, `len`, and one crop of a record of the first shard, in a process of its own.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import shards
from shards.receipt import dump_json
from tests.bench.loading.made import CROP, Size, example, header


def simulate(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    names = shards.shard_names("train", count)
    first = shards.write_shard(folder / names[0], [example(Size(1, 2, 2, 2 * CROP), 0)], {})
    for number, name in enumerate(names[1:], 1):
        entry = replace(first.examples[0], id=f"song-{number:05d}")
        receipt = replace(first, shard=name, examples=(entry,))
        (folder / name).with_suffix(".json").write_bytes(dump_json(receipt.to_json()))
        with (folder / name).open("wb") as file:
            file.truncate(first.bytes)
    shards.write_index(folder, header(), {"train": names})


def main(data: str, count: int) -> None:
    folder = Path(data) / f"shards-{count}"
    if not (folder / "dataset.json").exists():
        simulate(folder, count)
    start = time.perf_counter()
    dataset = shards.open(folder)
    opened = time.perf_counter()
    assert len(dataset) == count
    assert dataset[0]["mixes"][1, :CROP].shape == (CROP, header()["codec"]["dim"])
    done = time.perf_counter()
    print(f"{done - start:.2f} s to open {count} shards and cut one crop (shards.open: {opened - start:.2f} s)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
