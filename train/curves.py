"""What training measured: RUN/metrics.jsonl, one line a step, a picture of it, and TensorBoard's files if wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from shards.generations import atomic
from train.errors import RunError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


# Title and what is drawn under it; a run has some of them: the GAN's or the codec's
PANELS = {
    "losses": ("loss_g", "loss_d"),
    "advantage, and the mean of its sign": ("advantage", "sign"),
    "penalties' weight": ("gamma",),
    "penalties": ("r1", "r2"),
    "gradient norms": ("grad_norm_g", "grad_norm_d"),
    "frames a second": ("frames_per_s",),
    "distances": ("mel", "fine_mel", "waveform"),
}


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


def draw(run: Path, path: Path) -> None:
    """A PNG of RUN/metrics.jsonl: each point is the mean of a hundredth of it. Raises RunError where there is none."""
    from matplotlib.figure import Figure  # slow to import, and seldom wanted

    rows = _rows(run / "metrics.jsonl")
    panels = {title: found for title, names in PANELS.items() if (found := [n for n in names if n in rows])}
    high = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 2.5 * high), dpi=80, layout="constrained")
    axes = figure.subplots(high, 2, squeeze=False).flat
    for ax, (title, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            steps, values = rows[name].T
            pieces = np.array_split(np.arange(len(steps)), min(100, len(steps)))
            ax.plot([steps[i].mean() for i in pieces], [values[i].mean() for i in pieces], label=name)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("step", fontsize=8)
        ax.legend(fontsize=8)
    for ax in figure.axes[len(panels) :]:
        ax.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        figure.savefig(file, format="png")


def _rows(path: Path) -> dict[str, NDArray[np.float64]]:
    """By name, (measured, 2): step and value. Not every step measures everything."""
    found: dict[str, list[tuple[float, float]]] = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    for row in (json.loads(line) for line in lines if line.endswith("\n")):  # the last may be half written
        for name in row:
            found.setdefault(name, []).append((row["step"], row[name]))
    if not found:
        raise RunError(f"{path} is not there, or empty. Name the --run of a `train fit` or `train codec`.")
    return {name: np.array(rows) for name, rows in found.items()}
