import pytest

from shards import Loader, ShardError
from shards.ranks import rank_and_world


def test_torchrun_is_picked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    loader = Loader(100, 2, lambda index, rng: index, list, 5)
    assert (loader.rank, loader.world) == (3, 8)
    alone = Loader(100, 2, lambda index, rng: index, list, 5, rank=0, world=1)
    assert (alone.rank, alone.world) == (0, 1)


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    loader = Loader(100, 2, lambda index, rng: index, list, 5)
    assert (loader.rank, loader.world) == (0, 1)


@pytest.mark.parametrize(("environment", "message"), [
    ({"RANK": "1"}, "environment variable WORLD_SIZE is not set; it must be a whole number: start with torchrun"),
    ({"WORLD_SIZE": "4"}, "environment variable RANK is not set"),
    ({"RANK": "one", "WORLD_SIZE": "4"}, "environment variable RANK is 'one'"),
    ({"RANK": "-1", "WORLD_SIZE": "4"}, "environment variable RANK is '-1'"),
    ({"RANK": "²", "WORLD_SIZE": "4"}, "environment variable RANK is '²'"),
    ({"RANK": "1", "WORLD_SIZE": ""}, "environment variable WORLD_SIZE is ''"),
    ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK 4 and WORLD_SIZE 4; RANK must be in 0 … WORLD_SIZE - 1"),
    ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK 0 and WORLD_SIZE 0"),
])  # fmt: skip
def test_garbage_is_told(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        rank_and_world(None, None, environment)


@pytest.mark.parametrize(("rank", "world"), [(0, None), (None, 4)])
def test_half_of_it_is_told(rank: int | None, world: int | None) -> None:
    """Every process under torchrun would otherwise take rank 0 for itself."""
    with pytest.raises(ShardError, match=r"rank is (0|None), world is (4|None); give both, or neither"):
        rank_and_world(rank, world, {"RANK": "1", "WORLD_SIZE": "4"})
