"""300 seeded faults, each in its own copy of a dataset: `python -m tests.bench.faults [OUT]`.

Each is put to three: reading everything through `shards.open`, verifying, and webdataset's default reader over the
tars that were built (so that it misses one that is gone). Without OUT a small dataset is built of made stems first.
Exits 1 unless each fault is found and named to the shard and the member.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tests.prep.made import tones, write_track
from tests.shards.damage import KINDS, damaged, folder_of
from tests.shards.finders import reading, sound_of, verifying, webdataset_says

COLUMNS = ("faults", "read", "verified", "named", "raised", "warned", "same", "lost", "wrong")


def built(folder: Path) -> Path:
    """A dataset of ten made multitracks in shards of about 1 MB, through `prep build`."""
    for number in range(1, 11):
        split = "train" if number < 9 else ("validation", "test")[number - 9]
        write_track(folder / "corpus" / split / f"Track{number:05d}", tones(number, stems=4, seconds=12.0))
    words = ["--dataset", "slakh", "--root", folder / "corpus", "--out", folder / "out", "--set", "shards.size_mb=1"]
    subprocess.run([sys.executable, "-m", "prep.cli", "build", *map(str, words)], check=True)
    return folder / "out"


def copied(out: Path, target: Path) -> None:
    """`current` and the live generation."""
    live = folder_of(out)
    shutil.copytree(live, target / "generations" / live.name)
    shutil.copy(out / "current", target)


def tally(out: Path, seed: int, scratch: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts by kind, and a line for each fault that was not found or not named."""
    tars, sound = sound_of(out)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    missed = []
    kinds = [kind for kind, (number, _) in KINDS.items() for _ in range(number)]
    for number, kind in enumerate(tqdm(kinds, unit="fault")):
        copy = scratch / f"{number:03d}"
        copied(out, copy)
        damage = damaged(copy, kind, np.random.default_rng([seed, number]))
        there = [copy / tar for tar in tars]
        read, verified = reading(copy), verifying(copy)
        said = {"read": read, "verified": verified, "named": damage.is_named(read + verified)}
        counts[kind].update(["faults", *(key for key, value in said.items() if value), webdataset_says(there, sound)])
        if not said["named"]:
            missed.append(f"{kind}: {damage.told}: {read + verified or 'not found'}")
        shutil.rmtree(copy)
    return counts, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="A dataset; it is only copied.")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.out or built(Path(folder))
        counts, missed = tally(out, chosen.seed, Path(folder) / "copies")
    print("| fault | faults | read | verified | named | webdataset: " + " | ".join(COLUMNS[4:]) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for kind, count in [*counts.items(), ("all", sum(counts.values(), Counter[str]()))]:
        print(f"| {kind} | " + " | ".join(str(count[column]) for column in COLUMNS) + " |")
    print("\n".join(missed))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
