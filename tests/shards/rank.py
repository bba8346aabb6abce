"""What torchrun starts in test_torchrun.py: a rank that takes its steps over OUT, and sums with the others at each.

rank.py OUT REPORTS EPOCHS [KILLED]    rank 2 kills itself before step KILLED
"""

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import shards


def main(out: Path, reports: Path, epochs: int, killed: int = -1) -> None:
    (reports / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    train = shards.open(out).split("train")
    counts = [shard.examples for shard in train.shards]

    def draw(index: int, rng: np.random.Generator) -> tuple[int, float]:
        return index, float(np.asarray(train[index]["stems"][0, :4]).sum())

    order = shards.Windows(counts, 2)
    loader = shards.Loader(order, 2, draw, lambda draws: [index for index, _ in draws], 3, epochs=epochs)
    steps, seen, sums = len(loader), [], []
    for step, batch in enumerate(loader):
        if step == killed and loader.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        total = torch.tensor([float(len(batch))])
        dist.all_reduce(total)
        seen += [batch]
        sums += [total.item()]
    report = {"rank": loader.rank, "world": loader.world, "steps": steps, "seen": seen, "sums": sums, "counts": counts}
    (reports / f"{loader.rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
