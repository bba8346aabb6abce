"""Which of how many processes this is, as torchrun says it."""

import os
from collections.abc import Mapping

from shards.errors import ShardError


def rank_and_world(rank: int | None, world: int | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """As given, or else as in RANK and WORLD_SIZE, or else 0 of 1. Raises ShardError for one without the other."""
    if rank is not None and world is not None:
        return rank, world
    if rank is not None or world is not None:
        raise ShardError(f"loader: rank is {rank}, world is {world}; give both, or neither to take torchrun's")
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return 0, 1
    found_rank, found_world = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
    if not 0 <= found_rank < found_world:
        raise ShardError(
            f"the environment has RANK {found_rank} and WORLD_SIZE {found_world}; RANK must be in 0 … WORLD_SIZE - 1: "
            "start with torchrun, which sets both, or unset both for one process"
        )
    return found_rank, found_world


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None or not (text.isascii() and text.isdigit()):
        raise ShardError(
            f"the environment variable {name} is {'not set' if text is None else repr(text)}; it must be a whole "
            "number: start with torchrun, which sets RANK and WORLD_SIZE, or unset both for one process"
        )
    return int(text)
