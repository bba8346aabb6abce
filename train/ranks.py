"""The processes that train together, as torchrun starts them: one of one without it.

Gradients are averaged by DistributedDataParallel, what is measured by `mean`; the loader deals out the data by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shards.ranks import rank_and_world


@dataclass(frozen=True)
class Ranks:
    """Which of `world` processes this is, and what it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def synced(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over ranks in each backward pass; all ranks start from rank 0's."""
        return DistributedDataParallel(network, broadcast_buffers=False) if self.world > 1 else network

    def mean(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Averages over ranks, of the same names on each."""
        flat = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values.values()]
        )
        if self.world > 1:
            dist.all_reduce(flat)
            flat /= self.world
        return dict(zip(values, flat.tolist(), strict=True))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among torchrun's: over gloo on the CPU, over nccl on CUDA, where each has the GPU of its number."""
    rank, world = rank_and_world(None, None)
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(device=place)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, place)
    finally:
        dist.destroy_process_group()


def unsynced(network: nn.Module) -> AbstractContextManager[None]:
    """Within it, gradients stay on their rank: for all but the last part of a batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
