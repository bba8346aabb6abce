"""The stems of one multitrack at rest: in memory, or, where they are too long for it, in a file without a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prep.stages.weighting import are_alike

Audio = NDArray[np.float32]

# Up to here stems stay in memory; a mono stem of 5 minutes has 53 MB
HELD_BYTES = 300_000_000


class Spool:
    """Holds stems of (channels, samples) and hands them out stretch by stretch. A channel that repeats the first is
    held once. A context manager: nothing is left in `folder` when it ends, nor when the process is killed."""

    def __init__(self, channels: int, samples: int, folder: Path) -> None:
        self._channels, self._samples = channels, samples
        self._held: dict[int, Audio] = {}
        self._places: dict[int, tuple[int, int]] = {}  # stem -> offset in the file, channels there
        self._budget = HELD_BYTES
        # where it does need a name for a moment, it is one that the next build removes
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".part")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        self._file.close()

    def put(self, stem: int, audio: Audio) -> None:
        """(channels, samples)."""
        distinct = audio[:1] if are_alike(audio) else audio
        if distinct.nbytes <= self._budget:
            self._budget -= distinct.nbytes
            self._held[stem] = np.ascontiguousarray(distinct)
            return
        offset = self._file.seek(0, 2)
        for channel in distinct:
            self._file.write(np.ascontiguousarray(channel).data)
        self._places[stem] = (offset, len(distinct))

    def stretches(self, stems: Iterable[int], length: int) -> Iterator[dict[int, Audio]]:
        """(channels, up to `length` samples) of each of `stems`, from beginning to end; not to be changed."""
        wanted = sorted(set(stems))
        for start in range(0, self._samples if wanted else 0, length):
            stop = min(start + length, self._samples)
            yield {
                stem: np.broadcast_to(self._get(stem, start, stop), (self._channels, stop - start)) for stem in wanted
            }

    def _get(self, stem: int, start: int, stop: int) -> Audio:
        return self._held[stem][:, start:stop] if stem in self._held else self._read(stem, start, stop)

    def _read(self, stem: int, start: int, stop: int) -> Audio:
        offset, channels = self._places[stem]
        part = np.empty((channels, stop - start), np.float32)
        for number, channel in enumerate(part):
            self._file.seek(offset + 4 * (number * self._samples + start))
            # a read that comes up short has another shape, and raises
            channel[:] = np.frombuffer(self._file.read(channel.nbytes), np.float32).reshape(channel.shape)
        return part
