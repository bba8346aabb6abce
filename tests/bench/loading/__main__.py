"""Loading beside webdataset, litData, MosaicML streaming and a bare memory map: `make bench-loading`.

Same bytes, same output, warm page cache. Each contender runs in a process of its own, in turns, `--rounds` times; the
peers with no and with two worker processes. A pass is as many pairs as there are bytes in the dataset (each of its
blocks is touched once or more, 95 % of them), but no longer than `--seconds`. The table gives, as medians over the
rounds, pairs a second in the first pass and in the later ones, and the CPU time a pair of a process without workers;
then the most memory that a process held which no file backs (RssAnon, sampled twenty times a second), in MB.
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
    """What to run, and what came of it: a list of passes for each process (see measure.run_pass), bytes of memory."""

    told: str
    name: str
    workers: int = 0
    crops: int = 1
    folder: str = "ours"
    ran: list[list[dict[str, float]]] = field(default_factory=list)
    anon: list[int] = field(default_factory=list)
    failed: str = ""

    def median(self, key: str, first: bool = False) -> float:
        """Over all rounds, of the first pass or of the later ones."""
        return statistics.median(each[key] for passes in self.ran for each in (passes[:1] if first else passes[1:]))


def contenders() -> list[Contender]:
    own = [
        Contender("memory map (ceiling)", "ceiling"),
        Contender("memory map, new arrays", "ceiling_new_arrays"),
        Contender("ours", "ours"),
        Contender("ours, verify=False", "ours_unverified"),
    ]
    indexed = [
        Contender(told, name, workers, folder=folder)
        for told, name, folder in (
            ("litData, windows", "litdata_windows", "litdata"),
            ("litData, windows, 64 MB", "litdata_windows_64mb", "litdata-64mb"),
            ("litData, items", "litdata_items", "litdata-64mb"),
            ("MosaicML", "mosaicml", "mosaicml"),
        )
        for workers in (0, 2)
    ]
    sequential = [
        Contender(f"webdataset, {crops} an example", "webdataset", workers, crops)
        for crops in (1, 4, 16)
        for workers in (0, 2)
    ]
    return [*own, *indexed, *sequential]


def measure(contender: Contender, data: Path, passes: int, seconds: float) -> None:
    """Adds one process's figures to the contender's; notes why it failed."""
    _warm(data / contender.folder)
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
    contender.ran.append(json.loads(out.strip().splitlines()[-1]))
    contender.anon.append(anon)


def _warm(folder: Path) -> None:
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
    columns = ("workers", "first pass", "later", "of ceiling", "ours is", "CPU us", "MB")
    yield f"{'':28}" + "".join(f"{column:>12}" for column in columns)
    for each in ran:
        line = f"{each.told:28}{each.workers:12}"
        if each.failed:
            yield f"{line}   failed: {each.failed[:90]}"
            continue
        rate = each.median("rate")
        line += f"{each.median('rate', first=True):12,.0f}{rate:12,.0f}"
        line += f"{rate / ceiling.median('rate'):12.2f}" if ceiling.ran else f"{'':12}"
        line += f"{own.median('rate') / rate:11.1f}x" if own.ran else f"{'':12}"
        cpu = "" if each.workers else f"{each.median('cpu_us'):.1f}"
        yield f"{line}{cpu:>12}{max(each.anon) / 1e6:12.0f}"


def amplification(ran: list[Contender]) -> Iterator[str]:
    for each in ran:
        if each.name == "webdataset" and not each.workers and each.ran:
            read = each.median("read")
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
