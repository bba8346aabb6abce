"""What training measured: RUN/metrics.jsonl, one line a step, and TensorBoard's files if wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class Curves:
    lines: TextIO
    board: SummaryWriter | None

    @classmethod
    @contextmanager
    def open(cls, run: Path, step: int, tensorboard: bool) -> Iterator[Self]:
        """Curves that go on after `step`: what a killed run measured beyond its checkpoint is dropped."""
        path = run / "metrics.jsonl"
        old = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        kept = [line for line in old[:step] if line.endswith(b"\n")]
        board = _board(run / "tensorboard", step) if tensorboard else None
        with path.open("a", encoding="utf-8") as lines:
            lines.truncate(sum(map(len, kept)))  # in place: written anew, they would be lost to a kill or a full disk
            yield cls(lines, board)
        if board:
            board.close()

    def write(self, step: int, row: dict[str, float]) -> None:
        """`step` counts finished steps, from 1."""
        self.lines.write(json.dumps({"step": step, **row}) + "\n")
        self.lines.flush()
        if self.board:
            for name, value in row.items():
                self.board.add_scalar(name, value, step)

    def show(
        self, name: str, step: int, sounds: dict[str, NDArray[np.float32]], rate: int, image: NDArray[np.uint8]
    ) -> None:
        """Audio (channels, samples) and pixels (height, width, 3), in TensorBoard if that is wanted."""
        if not self.board:
            return
        for part, sound in sounds.items():
            self.board.add_audio(f"{name}/{part}", np.clip(sound.mean(axis=0), -1, 1), step, rate)
        self.board.add_image(name, image, step, dataformats="HWC")


def _board(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and seldom wanted

    return SummaryWriter(str(folder), purge_step=step + 1)
