"""Loading beside webdataset, litData, MosaicML streaming and a bare memory map: `make bench-loading`.

Same bytes, same output, warm page cache. Each contender runs in a process of its own, in turns, `--rounds` times; the
peers with no and with two worker processes. A pass is as many pairs as there are bytes in the dataset (each of its
blocks is touched once or more, 95 % of them), but no longer than `--seconds`. The table gives medians over the rounds;
the memory is the largest process's that is not backed by a file (RssAnon), sampled twenty times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.loading.made import PAIR_BYTES, Size, make

POLL_S = 0.05


@dataclass
class Contender:
    """What to run, and what came of it: pairs a second, bytes read for each given, bytes of memory."""

    told: str
    name: str
    workers: int = 0
    crops: int = 1
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    anon: list[int] = field(default_factory=list)
    failed: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.later) if self.later else 0.0


def contenders() -> list[Contender]:
    own = [
        Contender("memory map (ceiling)", "ceiling"),
        Contender("ours", "ours"),
        Contender("ours, verify=False", "ours_unverified"),
    ]
    peers = {"litData, windows": "litdata_windows", "litData, items": "litdata_items", "MosaicML": "mosaicml"}
    indexed = [Contender(told, name, workers) for told, name in peers.items() for workers in (0, 2)]
    sequential = [
        Contender(f"webdataset, {crops} an example", "webdataset", workers, crops)
        for crops in (1, 4, 16)
        for workers in (0, 2)
    ]
    return [*own, *indexed, *sequential]


def measure(contender: Contender, data: Path, passes: int, seconds: float) -> None:
    """Adds one process's figures to the contender's; notes why it failed."""
    _warm(data, contender.name)
    numbers = [str(number) for number in (contender.workers, contender.crops, passes, seconds)]
    command = [sys.executable, "-m", "tests.bench.loading.measure", contender.name, str(data), *numbers]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    anon, out, error = 0, None, ""
    while out is None:
        anon = max([anon, *_anon_bytes(process.pid)])
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, error = process.communicate(timeout=POLL_S)
    if process.returncode:
        contender.failed = error.strip().splitlines()[-1] if error.strip() else f"exit {process.returncode}"
        return
    found = json.loads(out.strip().splitlines()[-1])
    contender.first.append(found["rates"][0])
    contender.later.extend(found["rates"][1:])
    contender.read.extend(found["read"])
    contender.anon.append(anon)


def _warm(data: Path, name: str) -> None:
    folder = data / next((part for part in ("litdata", "mosaicml") if name.startswith(part)), "ours")
    for path in folder.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def _anon_bytes(pid: int) -> Iterator[int]:
    """Of the process and its children, worker processes; nothing for one that has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    yield 1024 * int(status.get("RssAnon", "0 kB").split()[0])
    for child in children:
        yield from _anon_bytes(int(child))


def table(ran: list[Contender]) -> Iterator[str]:
    ceiling, own = (next(each for each in ran if each.name == name) for name in ("ceiling", "ours"))
    yield f"{'':28}{'workers':>8}{'first pass':>12}{'later':>10}{'ceiling x':>11}{'ours is':>9}{'MB a process':>14}"
    for each in ran:
        if each.failed or not each.later:
            yield f"{each.told:28}{each.workers:8}   failed: {each.failed[:80]}"
            continue
        ratios = f"{each.rate / ceiling.rate:11.2f}{own.rate / each.rate:8.1f}x" if ceiling.rate else ""
        rates = f"{statistics.median(each.first):12,.0f}{each.rate:10,.0f}"
        yield f"{each.told:28}{each.workers:8}{rates}{ratios}{max(each.anon) / 1e6:14.0f}"


def amplification(ran: list[Contender]) -> Iterator[str]:
    """Bytes that webdataset reads for each byte of its pairs."""
    for each in ran:
        if each.name == "webdataset" and not each.workers and each.read:
            read = statistics.median(each.read)
            yield f"webdataset reads {read:.1f} bytes for each byte used, with {each.crops} crops an example"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("out/bench-loading"))
    parser.add_argument("--examples", type=int, default=100, help="of 9 stems and 10 mixes of 4 minutes, 12.6 MB each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", nargs="*", help="names of contenders, beside ours and the ceiling")
    options = parser.parse_args()
    size = Size(options.examples)
    make(options.data, size)
    ran = [each for each in contenders() if not options.only or each.name in ("ceiling", "ours", *options.only)]
    for number in range(options.rounds):
        for each in ran:
            print(f"round {number + 1}: {each.told}, {each.workers} workers", file=sys.stderr)
            measure(each, options.data, options.passes, options.seconds)
    print(f"\n{size.examples} examples, {size.bytes / 1e9:.2f} GB of latents; pairs of {PAIR_BYTES} bytes a second\n")
    print("\n".join([*table(ran), "", *amplification(ran)]), flush=True)
    subprocess.run([sys.executable, "-m", "tests.bench.loading.opening", str(options.data), "10000"], check=True)


if __name__ == "__main__":
    main()
