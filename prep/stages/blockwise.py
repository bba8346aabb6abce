"""A recursive filter as matrix products: what follows from each sample in turn, done for thousands at once.

scipy's `sosfilt` waits for each sample's result before it starts on the next, which costs more than the arithmetic.
In state space, a block's output is linear in its samples and in the state before it, and so is the state after it;
the states before all blocks are found in the same way from blocks of blocks. The numbers are those of `sosfilt` up to
the rounding of float64, in which processors differ: what a digest hangs on is rounded first.
"""

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


class BlockFilter:
    """`sections` as scipy has them, for one channel; states are `sosfilt`'s, (sections, 2)."""

    def __init__(self, sections: Matrix) -> None:
        self.sections = sections
        states = 2 * len(sections)
        unit = np.eye(_SAMPLES + states)
        before = unit[:, _SAMPLES:].reshape(-1, len(sections), 2).transpose(1, 0, 2)
        out, after = signal.sosfilt(sections.copy(), unit[:, :_SAMPLES], zi=before)
        last = after.transpose(1, 0, 2).reshape(-1, states)
        # Of each level: (inputs and state before) -> outputs, inputs -> state after
        self._levels = [(out, last[:-states])]
        for _ in range(_LEVELS):
            out, last = _of_blocks(last[-states:])
            self._levels.append((out, last[:-states]))
        self._step = last[-states:]
        self._room: dict[tuple[int, ...], Matrix] = {}

    def __call__(self, samples: NDArray[Any], state: Matrix) -> tuple[Matrix, Matrix]:
        """A multiple of UNIT samples and the state before them, to as many filtered ones and the state after them.

        What is filtered lies in room that the next call uses again."""
        seen: list[Matrix] = []
        inputs: Matrix = samples  # as float64 from the first product on
        for out, into in self._levels:
            width = len(into)
            both = self._array(inputs.size // width, len(out))
            both[:, :width] = inputs.reshape(-1, width)
            seen.append(both)
            inputs = both[:, :width] @ into
        states, after = _one_by_one(inputs, self._step, state.reshape(-1))
        for both, (out, into) in zip(reversed(seen), reversed(self._levels), strict=True):
            both[:, len(into) :] = states.reshape(len(both), -1)
            states = np.matmul(both, out, out=self._array(len(both), out.shape[1]))
        return states.reshape(-1), after.reshape(state.shape)

    def _array(self, rows: int, columns: int) -> Matrix:
        """Room that is used again: mapped anew for each call, it would cost as much as the arithmetic."""
        if (rows, columns) not in self._room:
            self._room[rows, columns] = np.empty((rows, columns))
        return self._room[rows, columns]


def _of_blocks(step: Matrix) -> tuple[Matrix, Matrix]:
    """For `state = state @ step + input`, done _BLOCKS times: the states before each, and the one after all."""
    states = len(step)
    unit = np.eye((_BLOCKS + 1) * states)
    before = [unit[:, -states:]]
    for at in range(_BLOCKS):
        before.append(before[-1] @ step + unit[:, at * states : (at + 1) * states])
    return np.concatenate(before[:-1], axis=1), before[-1]


def _one_by_one(inputs: Matrix, step: Matrix, state: Matrix) -> tuple[Matrix, Matrix]:
    """The states before each input, and the one after all."""
    before = np.empty_like(inputs)
    for at, given in enumerate(inputs):
        before[at] = state
        state = state @ step + given
    return before, state
