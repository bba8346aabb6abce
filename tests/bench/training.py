"""What a step of training costs: `python -m tests.bench.training` (a config of your own: `… configs/liveband.yaml`).

Builds a dataset of random latents in a temporary folder, then prints, as ratios in one run: the share of a step that is
spent waiting for data; compiled against eager; lazy penalties against R3GAN's, both at every step; and the largest
costs of a step. On a GPU also FlexAttention against SDPA, frames a second, steps a second and the share of its peak.
Rounds of each way take turns, so that another load on the machine falls on all of them; medians are of rounds.
Steps are timed on the wall on a GPU, in processor time on a CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shards
from tests.train.made import CLASSES, example, identity_json, write
from train.batches import Batch, Pairs
from train.config import Config, load, parse
from train.cost import flops_a_step
from train.game import Game, train_step
from train.loop import fit
from train.ranks import Ranks

DIM, SONGS, FRAMES = 128, 24, 2000
ROUNDS, CYCLE = 3, 16  # steps a round: both penalties once where every = 8
WAITED = 40  # steps
# dense bfloat16, from the makers' data sheets
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "4090": 165.0, "3090": 71.0}


def main() -> None:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    default = Path(__file__).parents[2] / "configs" / ("liveband.yaml" if on_gpu else "demo.yaml")
    config = load(Path(sys.argv[1]) if sys.argv[1:] else default)
    where = torch.cuda.get_device_name() if on_gpu else "the CPU"
    print(f"{torch.get_num_threads()} threads, on {where}; {_sizes(config)}")
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(Path(folder) / "data")
        print(waiting(changed(config, loop={"steps": WAITED, "checkpoint_every": WAITED}), data, Path(folder), device))
        pairs = Pairs.of(shards.open(data), config)
        batches = [batch.to(device) for batch in _batches(pairs, config.batches.batch_size)]
    ways = {"eager": changed(config, loop={"compile": "none"}, optimiser={"penalty_every": 8})}
    ways["R3GAN's penalties"] = changed(ways["eager"], optimiser={"penalty_every": 1})
    if compiler := shutil.which(os.environ.get("CXX", "g++")):
        ways["compiled"] = changed(ways["eager"], loop={"compile": "inductor"})
    else:
        print("compiled: left out, for inductor finds no C++ compiler here (g++, or what $CXX names)")
    if on_gpu and compiler:
        ways["compiled, SDPA"] = changed(ways["compiled"], loop={"attention": "sdpa"})
    games = {name: Game.new(way, DIM, len(CLASSES), Ranks(device=device)) for name, way in ways.items()}
    seconds = measured(games, ways, batches)
    for name, found in seconds.items():
        against = f"{1000 * found:.1f} ms a step, {found / seconds['eager']:.2f} of eager"
        print(f"{name}: {against}; {_rates(ways[name], found, device)}")
    print(profile(games["eager"], ways["eager"], batches))


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    values = json.loads(config.model_dump_json())
    return parse({**values, **{name: {**values[name], **new} for name, new in sections.items()}}, "bench")


def dataset(out: Path) -> Path:
    """Songs of 3.1 minutes with 4 stems and 6 mixes, of random latents."""
    members = ((0, 1), (0, 2), (1, 2), (1, 3), (0, 1, 2), (1, 2, 3))
    rng, made = np.random.default_rng(0), []
    for number in range(SONGS):
        latents = rng.standard_normal((4 + len(members), FRAMES, DIM), dtype=np.float32).astype(np.float16)
        song = example(f"song{number}", stems=4, members=members, frames=FRAMES)
        made.append(replace(song, stems=latents[:4], mixes=latents[4:]))
    return write(out, made, codec=identity_json(dim=DIM))


def waiting(config: Config, data: Path, folder: Path, device: torch.device) -> str:
    """By the curves of a real run, its first step left out."""
    fit(config, data, folder / "run", device.type, say=lambda _: None)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    frames = 2 * config.batches.batch_size * config.batches.crop_frames
    waited, all_of_it = (
        sum(each) for each in zip(*((r["data_wait_s"], frames / r["frames_per_s"]) for r in rows), strict=True)
    )
    return f"waiting for data: {waited / all_of_it:.2%} of a step ({1000 * waited / len(rows):.2f} ms)"


def _batches(pairs: Pairs, size: int) -> Iterator[Batch]:
    for first in (0, size):
        drawn = [pairs.draw(index % len(pairs), np.random.default_rng(index)) for index in range(first, first + size)]
        yield pairs.collate(drawn)


def measured(games: dict[str, Game], ways: dict[str, Config], batches: list[Batch]) -> dict[str, float]:
    """Median seconds a step, after a round that compiles."""
    rounds: dict[str, list[float]] = {name: [] for name in games}
    for _ in range(ROUNDS + 1):
        for name, game in games.items():
            began = _clock(game)
            for step in range(CYCLE):
                train_step(game, *batches, step, ways[name])
            rounds[name].append((_clock(game) - began) / CYCLE)
    return {name: statistics.median(each[1:]) for name, each in rounds.items()}


def _clock(game: Game) -> float:
    if game.ranks.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def profile(game: Game, config: Config, batches: list[Batch]) -> str:
    """The largest costs of a round, each operation without those that it calls."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    gpu = game.ranks.device.type == "cuda"
    with torch.profiler.profile(activities=activities + [torch.profiler.ProfilerActivity.CUDA] * gpu) as profiler:
        for step in range(CYCLE):
            train_step(game, *batches, step, config)
    key = "self_device_time_total" if gpu else "self_cpu_time_total"
    costs = sorted(((getattr(each, key), each.key) for each in profiler.key_averages()), reverse=True)
    total = sum(cost for cost, _ in costs)
    return "\n".join(
        ["the largest costs of eager steps:", *(f"  {cost / total:6.1%}  {name}" for cost, name in costs[:8])]
    )


def _sizes(config: Config) -> str:
    c = config.batches
    tera = flops_a_step(config, DIM, len(CLASSES)) / 1e12
    return f"two batches of {c.batch_size} x {c.crop_frames} frames and {tera:.3g} TFLOP a step"


def _rates(config: Config, seconds: float, device: torch.device) -> str:
    frames = 2 * config.batches.batch_size * config.batches.crop_frames
    rates = f"{1 / seconds:.2f} steps and {frames / seconds:.0f} frames a second"
    tera = flops_a_step(config, DIM, len(CLASSES)) / seconds / 1e12
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    peaks = [peak for known, peak in PEAK_TFLOPS.items() if known in name]
    return f"{rates}, {tera:.3g} TFLOP/s" + (f", {tera / peaks[0]:.1%} of its bfloat16 peak" if peaks else "")


if __name__ == "__main__":
    main()
