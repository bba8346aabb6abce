"""A shuffle that needs no memory: a keyed permutation of 0 … size - 1, one index at a time.

A Feistel network permutes the numbers of as many bits as `size` has; what falls outside `size` is walked on until it
falls inside (cycle walking: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002), in fewer than two steps on
average. Good enough to shuffle; not cryptography.
"""

import hashlib
from functools import lru_cache

_ROUNDS = 12  # with 8, where two indices go is far from uniform at sizes 5 and 6
_MASK = (1 << 64) - 1


def permute(index: int, size: int, key: int) -> int:
    """Where `key`'s permutation of 0 … size - 1 sends `index`. Raises ValueError when index is not in that range."""
    if not 0 <= index < size:
        raise ValueError(f"index is {index}; it must be in 0 … {size - 1}")
    bits = (size - 1).bit_length()
    keys = _round_keys(key)
    index = _feistel(index, bits, keys)
    while index >= size:
        index = _feistel(index, bits, keys)
    return index


@lru_cache(maxsize=64)
def _round_keys(key: int) -> tuple[int, ...]:
    digest = hashlib.shake_256(str(key).encode()).digest(8 * _ROUNDS)
    return tuple(int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))


def _feistel(value: int, bits: int, keys: tuple[int, ...]) -> int:
    """A bijection of `bits`-bit numbers: a round changes one half by a function of the other, so it can be undone."""
    low = bits // 2
    left, right = value >> low, value & ((1 << low) - 1)
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        right ^= _mix(left ^ first) >> 8 & ((1 << low) - 1)
        left ^= _mix(right ^ second) >> 8 & ((1 << bits - low) - 1)
    return left << low | right


def _mix(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
