"""A recursive filter as matrix products: what follows from each sample in turn, done for thousands at once.

scipy's `sosfilt` waits for each sample's result before it starts on the next, which costs more than the arithmetic.
In state space, a block's output is linear in its samples and in the state before it, and so is the state after it;
the states before all blocks are found in the same way from blocks of blocks. The numbers are those of `sosfilt` up to
the rounding of float64, in which processors differ: what a digest hangs on is rounded first. They do not change with
the number of threads: every product is small enough for BLAS to stay on one, where it is also quickest.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Matrix = NDArray[np.float64]

_SAMPLES = 32
_BLOCKS = 4
_LEVELS = 4
# What is filtered at once is a multiple of this
UNIT = _SAMPLES * _BLOCKS**_LEVELS
# A block's samples are made in as many parts: the first one follows from fewer of them
_PARTS = 2


class BlockFilter:
    """`sections` as scipy has them, for one channel; states are `sosfilt`'s, (sections, 2)."""

    def __init__(self, sections: Matrix) -> None:
        self.sections = sections
        states = 2 * len(sections)
        unit = np.eye(states + _SAMPLES)
        before = unit[:, :states].reshape(-1, len(sections), 2).transpose(1, 0, 2)
        out, after = signal.sosfilt(sections.copy(), unit[:, states:], zi=before)
        step = after.transpose(1, 0, 2).reshape(-1, states)
        # Of each level: (state before and inputs) -> outputs, inputs -> state after
        self._levels = [(_in_parts(out, _PARTS), step[states:])]
        for _ in range(_LEVELS):
            out, step = _of_blocks(step[:states])
            self._levels.append((_in_parts(out, _BLOCKS), step[states:]))
        self._step = step[:states]
        self._rooms: dict[int, _Room] = {}

    def __call__(self, samples: NDArray[Any], state: Matrix) -> tuple[Matrix, Matrix]:
        """A multiple of UNIT samples and the state before them, to as many filtered ones and the state after them.

        What is filtered lies in room that the next call uses again.
        """
        units = len(samples) // UNIT
        if units not in self._rooms:
            self._rooms[units] = _Room(units, self._levels)
        room = self._rooms[units]
        room.samples[:] = samples.reshape(room.samples.shape)
        for inputs, into, after in room.up:
            np.matmul(inputs, into, out=after)
        last = state.reshape(-1)
        for before, given in zip(room.states, room.inputs, strict=True):
            before[:] = last
            last = last.dot(self._step) + given
        for both, out, outputs in room.down:
            np.matmul(both, out, out=outputs)
        return room.filtered, last.reshape(state.shape)


class _Room:
    """Where `units` are filtered: mapped anew for each call, it would cost as much as the arithmetic.

    A level has a row a block: the state before it, then its inputs. `up` and `down` are the products from one level to
    the next, (given, matrix, result), in their order.
    """

    def __init__(self, units: int, levels: list[tuple[list[Matrix], Matrix]]) -> None:
        states = levels[0][1].shape[1]
        rows = [units * _BLOCKS ** (_LEVELS - level) for level in range(_LEVELS + 1)]
        both = [np.empty((n, states + len(into))) for n, (_, into) in zip(rows, levels, strict=True)]
        self.samples, self.states = both[0][:, states:], both[-1][:, :states]
        self.inputs, self.filtered = np.empty((units, states)), np.empty(units * UNIT)
        self.up, self.down = [], []
        for (below, above), ((_, into), (outs, _)) in zip(pairwise(both), pairwise(levels), strict=True):
            for at, (given, out) in enumerate(zip(np.split(above[:, states:], _BLOCKS, axis=1), outs, strict=True)):
                self.up.append((below[at::_BLOCKS, states:], into, given))
                self.down.append((above[:, : len(out)], out, below[at::_BLOCKS, :states]))
        self.up.append((both[-1][:, states:], levels[-1][1], self.inputs))
        self.down.reverse()
        blocks = both[0].reshape(units, UNIT // _SAMPLES, -1)
        outputs = np.split(self.filtered.reshape(units, -1, _SAMPLES), _PARTS, axis=2)
        self.down += [(blocks[..., : len(out)], out, part) for out, part in zip(levels[0][0], outputs, strict=True)]


def _in_parts(out: Matrix, parts: int) -> list[Matrix]:
    """The outputs' columns in parts, each without the last rows that it does not follow from."""
    return [part[: 1 + np.flatnonzero(part.any(axis=1))[-1]].copy() for part in np.split(out, parts, axis=1)]


def _of_blocks(step: Matrix) -> tuple[Matrix, Matrix]:
    """For `state = state @ step + input`, done _BLOCKS times: the states before each, and the one after all."""
    states = len(step)
    unit = np.eye((1 + _BLOCKS) * states)
    before = [unit[:, :states]]
    for at in range(1, 1 + _BLOCKS):
        before.append(before[-1] @ step + unit[:, at * states : (at + 1) * states])
    return np.concatenate(before[:-1], axis=1), before[-1]
