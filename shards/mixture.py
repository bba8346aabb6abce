"""An order over several datasets at once, each by its weight."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError
from shards.order import Order, Places, key_of, permute

BLOCK = 1024  # positions; the weights are kept in slots of it
_KEPT = 8  # tables of blocks


@dataclass(frozen=True)
class _Block:
    """Which source each of the BLOCK slots falls to, and how many of that source's came before it in the block."""

    sources: NDArray[np.int64]
    before: NDArray[np.int64]


class Mixture:
    """Positions fall to the sources by `weights`; the n-th that falls to a source is that source's own position n.

    Indices run through the sources one after another: source s begins at `offsets[s]`. An index's epoch is its
    source's, so a source of few indices and much weight comes round more often. A block of 1024 positions has
    each source's quota exactly (weights are rounded to 1/1024), spread evenly over it and otherwise at random.
    Datasets at addresses need a cache (folder) each: in one they would drop each other's shards.
    """

    def __init__(self, orders: Sequence[Order], weights: Sequence[float]) -> None:
        self._orders, self._quotas = tuple(orders), np.array(_quotas(weights), np.int64)
        sizes = [order.size for order in self._orders]
        if len(sizes) != len(weights) or not all(sizes):
            raise ShardError(
                f"mixture: {len(weights)} weights, and orders of {sizes} indices; "
                "give each order a weight, and leave out those without indices"
            )
        self.offsets = tuple(sum(sizes[:source]) for source in range(len(sizes)))
        self.size = sum(sizes)
        self._blocks: dict[tuple[int, int], _Block] = {}

    def places(self, positions: NDArray[np.int64], seed: int) -> Places:
        sources, own = np.empty_like(positions), np.empty_like(positions)
        blocks, slots = np.divmod(positions, BLOCK)
        for block in np.unique(blocks).tolist():
            at, table = blocks == block, self._block(block, seed)
            sources[at], own[at] = table.sources[slots[at]], table.before[slots[at]]
        own += blocks * self._quotas[sources]
        epochs, indices = np.empty_like(positions), np.empty_like(positions)
        for source in np.unique(sources).tolist():
            at = sources == source
            epochs[at], indices[at] = self._orders[source].places(own[at], _own_seed(seed, source))
            indices[at] += self.offsets[source]
        return epochs, indices

    def identity(self) -> str:
        parts = [(order.identity(), quota) for order, quota in zip(self._orders, self._quotas.tolist(), strict=True)]
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        return f"mixture of {len(parts)} orders, {self.size} indices ({digest})"

    def coming(self, first: int, last: int, seed: int) -> None:
        ranges = zip(self._before(first, seed), self._before(last, seed), strict=True)
        for source, (own_first, own_last) in enumerate(ranges):
            # a source that has no turn among these positions is told of its next one
            self._orders[source].coming(own_first, max(own_last, own_first + 1), _own_seed(seed, source))

    def _before(self, position: int, seed: int) -> list[int]:
        """How many positions before `position` fall to each source."""
        block, slot = divmod(position, BLOCK)
        inside = np.bincount(self._block(block, seed).sources[:slot], minlength=len(self._quotas))
        return (block * self._quotas + inside).tolist()

    def _block(self, block: int, seed: int) -> _Block:
        """Source s has its k-th slot at a random point of the k-th of quota[s] equal parts of the block."""
        if (block, seed) not in self._blocks:
            if len(self._blocks) == _KEPT:
                del self._blocks[next(iter(self._blocks))]
            sources = np.repeat(np.arange(len(self._quotas)), self._quotas)
            before = np.concatenate([np.arange(quota) for quota in self._quotas])
            jitter = permute(np.arange(BLOCK), BLOCK, key_of(seed, block, "block")) / BLOCK
            order = np.argsort((before + jitter) / self._quotas[sources], kind="stable")
            self._blocks[block, seed] = _Block(sources[order], before[order])
        return self._blocks[block, seed]


def _own_seed(seed: int, source: int) -> int:
    return key_of(seed, source, "source")


def _quotas(weights: Sequence[float]) -> list[int]:
    """Slots of a block, by largest remainder. Raises ShardError for weights that cannot be kept."""
    if not len(weights) or not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ShardError(f"mixture: weights are {list(weights)}; give at least one, each a number above 0")
    shares = [Fraction(float(weight)) for weight in weights]
    total = sum(shares)
    exact = [BLOCK * share / total for share in shares]
    quotas = [int(slots) for slots in exact]
    by_remainder = sorted(range(len(exact)), key=lambda source: quotas[source] - exact[source])
    for source in by_remainder[: BLOCK - sum(quotas)]:
        quotas[source] += 1
    if not all(quotas):
        source = quotas.index(0)
        raise ShardError(
            f"mixture: weight {weights[source]} of source {source} is {float(exact[source]):.3g} of {BLOCK} positions "
            f"and gets no slot; give it at least 1/{BLOCK} of the sum ({float(total / BLOCK):.3g}), or leave it out"
        )
    return quotas
