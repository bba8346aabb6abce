"""Measures one contender in a process of its own and prints JSON: `python -m tests.bench.loading.measure NAME DATA`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.loading import contenders
from tests.bench.loading.made import BATCH, PAIR_BYTES, Batch, Size, check


def open_contender(name: str, folder: Path, size: Size, workers: int, crops: int) -> Iterator[Batch]:
    if name == "ceiling":
        return contenders.ceiling(folder, size, contenders.Pool())
    if name == "ceiling_new_arrays":
        return contenders.ceiling(folder, size, contenders.new_batch)
    if name.startswith("ours"):
        return contenders.ours(folder, size, verify=name == "ours")
    from tests.bench.loading import peers  # with torch, which ours does without

    return getattr(peers, name)(folder, size, workers, crops)


def run_pass(batches: Iterator[Batch], pairs: int, seconds: float) -> dict[str, float]:
    """Pairs a second; microseconds of this process's CPU a pair; bytes read by its system calls for each byte given."""
    start, cpu, read, count = time.perf_counter(), time.process_time(), _bytes_read(), 0
    while count < pairs and time.perf_counter() - start < seconds:
        next(batches)
        count += BATCH
    return {
        "rate": count / (time.perf_counter() - start),
        "cpu_us": 1e6 * (time.process_time() - cpu) / count,
        "read": (_bytes_read() - read) / (count * PAIR_BYTES),
    }


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def main(name: str, data: str, workers: int, crops: int, passes: int, seconds: float) -> None:
    """A pass is as many pairs as there are bytes in the dataset, or what is given in `seconds`."""
    folder = Path(data)
    size = Size.of(folder)
    batches = open_contender(name, folder, size, workers, crops)
    check(size, next(batches))
    print(json.dumps([run_pass(batches, size.bytes // PAIR_BYTES, seconds) for _ in range(passes)]))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]), float(sys.argv[6]))  # type: ignore[misc]
