"""Pairs to listen to and to measure on: the same ones always, from songs that training has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shards import Dataset, Record
from train.batches import Scale
from train.config import Batches
from train.errors import DataError
from train.generator import Generator
from train.pairing import Law, starts_of, valid_starts


@dataclass(frozen=True)
class Pair:
    """A target stem and the fullest stored mix without it, from `start` on, as stored: mix (frames + anticipation,
    dim), target (frames, dim), the latter sounding together with the mix's last `frames`."""

    song: str
    stem: str
    instrument: str
    start: int
    mix: NDArray[np.float16]
    target: NDArray[np.float16]

    @property
    def heard(self) -> NDArray[np.float16]:
        """Of the mix, what the generator hears."""
        return self.mix[: len(self.target)]

    @property
    def beside(self) -> NDArray[np.float16]:
        """Of the mix, what sounds together with the target."""
        return self.mix[-len(self.target) :]


def find_pairs(dataset: Dataset, split: str, c: Batches, frames: int, most: int, seed: int = 0) -> list[Pair]:
    """At most `most` pairs of `frames` frames in which mix and target sound, drawn by `seed`; two of one target do not
    overlap. Raises DataError where there is none."""
    if split not in dataset.splits:
        raise DataError(f"the dataset has no {split} split (it has {', '.join(dataset.splits) or 'none'})")
    part, law = dataset.split(split), Law.of(dataset.index, c)
    c = c.model_copy(update={"crop_frames": frames})
    levels_a_frame = dataset.index["levels_rate_hz"] / dataset.codec["frame_rate"]
    found = [(record, *place) for record in part for place in _places(record, law, c, levels_a_frame)]
    if not found:
        seconds = frames / dataset.codec["frame_rate"]
        raise DataError(
            f"no song of the {split} split has a target and a mix that sound for {seconds:.1f} s; take less"
        )
    drawn = np.random.default_rng(seed).permutation(len(found))[:most]
    return [_pair(c, *found[i]) for i in sorted(drawn.tolist())]


def _places(record: Record, law: Law, c: Batches, levels_a_frame: float) -> Iterator[tuple[int, int, int]]:
    """(stem, row, start) of every pair."""
    starts = starts_of(record, c, 0, record.meta["frames"])
    for stem in law.targets(record):
        rows, _ = law.heard(record, stem)
        if not rows:
            continue
        row = max(rows, key=lambda row: len(record.meta["members"][row]))
        levels, free = record["levels"], 0
        for start in valid_starts(levels[row], levels[stem], starts, c, levels_a_frame).tolist():
            if start >= free:
                yield stem, row, start
                free = start + c.crop_frames


def _pair(c: Batches, record: Record, stem: int, row: int, start: int) -> Pair:
    meta, end = record.meta, start + c.anticipation_frames + c.crop_frames
    name, offset = ("stems", row) if row < meta["n_stems"] else ("mixes", row - meta["n_stems"])
    mix, target = record[name][offset, start:end], record["stems"][stem, start + c.anticipation_frames : end]
    return Pair(record.id, meta["stems"][stem], meta["instruments"][stem], start, np.array(mix), np.array(target))


@torch.inference_mode()
def generate(
    generator: Generator, scales: tuple[Scale, Scale], pairs: list[Pair], classes: list[str], seed: int = 0
) -> list[torch.Tensor]:
    """What the generator plays to each pair's mix in the target's place: latents (frames, dim), float32, on the CPU.

    `scales` are the mix's and the target's. A pair's noise is that of its place in the list.
    """
    device = next(generator.parameters()).device
    played = []
    for number, pair in enumerate(pairs):
        drawn = torch.Generator().manual_seed(1_000_003 * seed + number)
        noise = torch.randn(1, len(pair.target), generator.config.noise_dim, generator=drawn).to(device)
        heard = scales[0].normalise(torch.from_numpy(pair.heard))[None].to(device)
        instrument = torch.tensor([classes.index(pair.instrument)], device=device)
        played.append(scales[1].restore(generator(heard, noise, instrument)[0].float().cpu()))
    return played
