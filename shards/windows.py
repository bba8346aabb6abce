"""An order for data that do not fit the cache: a few shards at a time, so that each is fetched once an epoch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError
from shards.order import Places, key_of, permute

_KEPT = 4  # layouts of epochs: a batch touches two at most, and what it fetches ahead one more


@dataclass(frozen=True)
class _Layout:
    """An epoch: its shards in their order, where each begins in it, and where each window begins; both with the end."""

    shards: NDArray[np.int64]
    begins: NDArray[np.int64]
    windows: NDArray[np.int64]


class Windows:
    """Shards permuted anew each epoch and cut into windows of `window`; the indices of a window are permuted together.

    `counts[s]` is how many indices shard s has; indices run shard after shard. `fetch` is called with the numbers of
    this window's shards and of the next one's (also across an epoch's end) when a window is entered, and should return
    soon: it is called by the thread that draws. One loader an object, or windows are announced more than once.
    """

    def __init__(self, counts: Sequence[int], window: int, fetch: Callable[[list[int]], object] | None = None) -> None:
        if window < 1 or min(counts, default=0) < 0:
            raise ShardError(
                f"windows: window is {window}, the least count {min(counts, default=0)}; give at least 1, 0"
            )
        self.window, self._fetch = window, fetch
        self._counts = np.array(counts, np.int64)
        self._offsets = np.cumsum(self._counts) - self._counts
        self._filled = np.flatnonzero(self._counts)
        self.size = int(self._counts.sum())
        self._laid: dict[tuple[int, int], _Layout] = {}
        self._entered = range(0)  # windows, counted over all epochs

    def places(self, positions: NDArray[np.int64], seed: int) -> Places:
        epochs, within = np.divmod(positions, self.size)
        indices = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            at = np.flatnonzero(epochs == epoch)
            layout = self._layout(epoch, seed)
            windows = np.searchsorted(layout.windows, within[at], "right") - 1
            for window in np.unique(windows).tolist():
                inside = at[windows == window]
                indices[inside] = self._within(layout, window, within[inside], key_of(seed, epoch, window))
        return epochs, indices

    def identity(self) -> str:
        digest = hashlib.sha256(self._counts.astype("<i8").tobytes()).hexdigest()[:12]
        return f"windows of {self.window} of {len(self._counts)} shards, {self.size} indices ({digest})"

    def coming(self, first: int, last: int, seed: int) -> None:
        if self._fetch is None:
            return
        touched = range(self._number(first, seed), self._number(last - 1, seed) + 1)
        for number in touched:
            if number not in self._entered:
                # a shard may be in the last window of an epoch and in the first of the next
                self._fetch(list(dict.fromkeys(self._shards(number, seed) + self._shards(number + 1, seed))))
        self._entered = touched

    @property
    def _an_epoch(self) -> int:
        return -(-len(self._filled) // self.window)

    def _number(self, position: int, seed: int) -> int:
        epoch, within = divmod(position, self.size)
        window = np.searchsorted(self._layout(epoch, seed).windows, within, "right") - 1
        return epoch * self._an_epoch + int(window)

    def _shards(self, number: int, seed: int) -> list[int]:
        epoch, window = divmod(number, self._an_epoch)
        first = window * self.window
        return self._layout(epoch, seed).shards[first : first + self.window].tolist()

    def _within(self, layout: _Layout, window: int, positions: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """The indices of some positions of an epoch, all in `window`."""
        first, end = layout.windows[window : window + 2].tolist()
        permuted = first + permute(positions - first, end - first, key).astype(np.int64)
        slots = np.searchsorted(layout.begins, permuted, "right") - 1
        return self._offsets[layout.shards[slots]] + permuted - layout.begins[slots]

    def _layout(self, epoch: int, seed: int) -> _Layout:
        if (epoch, seed) not in self._laid:
            if len(self._laid) == _KEPT:
                del self._laid[next(iter(self._laid))]
            key = key_of(seed, epoch, "shards")
            shards = self._filled[permute(np.arange(len(self._filled)), len(self._filled), key).astype(np.int64)]
            begins = np.append(0, np.cumsum(self._counts[shards]))
            windows = np.append(begins[: -1 : self.window], self.size)
            self._laid[epoch, seed] = _Layout(shards, begins, windows)
        return self._laid[epoch, seed]
