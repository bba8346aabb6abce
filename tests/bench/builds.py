"""A build's speed by stage, with one worker and two, and a rebuild's: `python -m tests.bench.builds CORPUS`.

CORPUS is in Slakh's layout (`prep compose` and `prep render` make one). Printed, as medians over `--rounds`: stem-seconds a
second of everything but the codec on one core (stages summed, and what is left of the wall time: writing, planning),
how many times faster two workers are than one, and the wall time of a rebuild with another codec over decoding,
mixing and encoding alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from prep.build import build
from prep.codecs import load_codec, save_codec
from prep.config import PrepConfig
from prep.draft import Corpus
from prep.rebuild import rebuild
from prep.report import STAGES, Work
from prep.sources.slakh import read_slakh


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    multitracks, rejects = read_slakh(asked.corpus)
    corpus = Corpus("slakh", asked.corpus, multitracks, rejects)
    ones: list[Work] = []
    gains: list[float] = []
    rebuilds: list[tuple[Work, float]] = []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            out, other = Path(scratch) / "out", Path(scratch) / "other.safetensors"
            one = _work(corpus, out, 1)
            two = _work(corpus, Path(scratch) / "two", 2)
            changed = load_codec()
            changed.wave_in.weight.data *= 1.01
            save_codec(changed, other)
            again = rebuild(out, asked.corpus, f"causal={other}", 1, progress=False).work
            assert again is not None
        ones.append(one)
        gains.append((one.wall_s - one.scan_s) / (two.wall_s - two.scan_s))
        rebuilds.append((again, again.wall_s / sum(again.stages[stage] for stage in ("read", "mix", "encode"))))
        print(f"round {number + 1}: two workers {gains[-1]:.2f}x, rebuild {rebuilds[-1][1]:.2f}x", flush=True)
    print("\n".join(_lines(ones)))
    print(f"two workers: {statistics.median(gains):.2f} times one")
    print(f"rebuild: {statistics.median(each for _, each in rebuilds):.2f} times decoding, mixing and encoding alone")


def _work(corpus: Corpus, out: Path, workers: int) -> Work:
    work = build(corpus, out, PrepConfig(), workers, progress=False).work
    assert work is not None
    return work


def _lines(works: list[Work]) -> list[str]:
    """Of builds by one worker. A stem-second is a second of a stem or a mix that was encoded."""
    told = []
    for stage in STAGES:
        if any(work.stages[stage] for work in works):
            spent = statistics.median(work.stages[stage] for work in works)
            share = statistics.median(work.stages[stage] / (work.wall_s - work.scan_s) for work in works)
            told.append(f"{stage:<10}{spent:7.1f} s  {share:4.0%}")
    rest = [work.wall_s - work.scan_s - sum(work.stages.values()) for work in works]
    told.append(f"{'the rest':<10}{statistics.median(rest):7.1f} s  (the codec's loading, planning, writing)")
    speed = [work.stream_s / (work.wall_s - work.scan_s - work.stages["encode"]) for work in works]
    told.append(f"all but the codec: {statistics.median(speed):.0f} stem-seconds a second on one core")
    return told


if __name__ == "__main__":
    main()
