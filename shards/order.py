"""The order of training as a pure function: positions 0, 1, 2 … without end, each sent to an index of some epoch.

Under all of it lies a shuffle that needs no memory: a keyed permutation of 0 … size - 1. A Feistel network permutes
the numbers of as many bits as `size` has; what falls outside `size` is walked on until it falls inside (cycle walking:
Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002), in fewer than two steps on average. Good enough to
shuffle; not cryptography.
"""

import hashlib
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ROUNDS = 12  # with 8, where two indices go is far from uniform at sizes 5 and 6

Places = tuple[NDArray[np.int64], NDArray[np.int64]]


class Order(Protocol):
    """Where each position leads. An epoch of a source visits each of its indices once, under every seed."""

    @property
    def size(self) -> int:
        """Indices are 0 … size - 1."""

    def places(self, positions: NDArray[np.int64], seed: int) -> Places:
        """The epoch and the index of each position, from 0 on. A pure function, quick for thousands at once."""

    def identity(self) -> str:
        """Which order this is, in words and under 200 characters; a state saved under another is refused."""

    def coming(self, first: int, last: int, seed: int) -> None:
        """Told before positions first … last - 1 are drawn: the time to fetch what they need."""


class Shuffle:
    """All indices of an epoch in one permutation: for data on local disk, or in a cache that holds them all."""

    def __init__(self, size: int) -> None:
        self.size = int(size)  # numpy's have no bit_length

    def places(self, positions: NDArray[np.int64], seed: int) -> Places:
        epochs, within = np.divmod(positions, self.size)
        indices = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            at = epochs == epoch
            indices[at] = permute(within[at], self.size, key_of(seed, epoch))
        return epochs, indices

    def identity(self) -> str:
        return f"shuffle of {self.size} indices"

    def coming(self, first: int, last: int, seed: int) -> None:
        pass


def key_of(*what: int | str) -> int:
    """64 bits that depend on all of `what`."""
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, what)).encode(), digest_size=8).digest(), "little")


def permute(indices: ArrayLike, size: int, key: int) -> NDArray[np.uint64]:
    """Where `key`'s permutation of 0 … size - 1 sends `indices`, in their shape; size is at most 2^63.

    Raises ValueError when one is not in that range.
    """
    given = np.asarray(indices)
    if given.size and (given.min() < 0 or given.max() >= size):
        wrong = given[(given < 0) | (given >= size)].flat[0]
        raise ValueError(f"index is {wrong}; it must be in 0 … {size - 1}")
    bits, keys = (size - 1).bit_length(), _round_keys(key)
    sent = _feistel(given.astype(np.uint64).ravel(), bits, keys)
    while len(outside := np.flatnonzero(sent >= size)):
        sent[outside] = _feistel(sent[outside], bits, keys)
    return sent.reshape(given.shape)


@lru_cache(maxsize=64)
def _round_keys(key: int) -> tuple[np.uint64, ...]:
    digest = hashlib.shake_256(str(key).encode()).digest(8 * _ROUNDS)
    return tuple(np.frombuffer(digest, "<u8"))


def _feistel(values: NDArray[np.uint64], bits: int, keys: tuple[np.uint64, ...]) -> NDArray[np.uint64]:
    """A bijection of `bits`-bit numbers: a round changes one half by a function of the other, so it can be undone."""
    low = np.uint64(bits // 2)
    right_mask, left_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    left, right = values >> low, values & right_mask
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        right ^= _mixed(left ^ first) & right_mask
        left ^= _mixed(right ^ second) & left_mask
    return left << low | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The upper 56 bits of SplitMix64's finaliser (Steele, Lea and Flood 2014). Changes `values`, which saves time."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    values >>= np.uint64(8)
    return values
