"""Training pairs: what the generator hears, what it should have played, and everything else that is drawn by chance.

The index runs over (target stem, block of starts at which it sounds), so that an epoch visits each once. For an
index, the mix, the start, the noise and the class dropout come from the generator that the loader keys by (seed, epoch,
index).

Time: a pair that starts at frame s with anticipation a gives the generator the mix s .. s + crop - 1, of which it
makes the accompaniment s + a .. s + a + crop - 1: what sounds at t + a has heard the mix up to t.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards import Dataset, Moments, Record
from train.config import Config
from train.errors import DataError

SizeLaw = Literal["uniform", "all"]  # of the mix: any number of the other stems, or all of them


@dataclass(frozen=True)
class Scale:
    """A role's statistics over the training split: mean and standard deviation a channel, each (dim,)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, moments: Moments) -> Self:
        return cls(torch.from_numpy(moments.mean), torch.from_numpy(moments.std))

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents.float() - self.mean) / self.std

    def restore(self, latents: Tensor) -> Tensor:
        return latents * self.std + self.mean


@dataclass(frozen=True)
class Draw:
    """One pair: mix (crop + anticipation, dim), target (crop, dim), latents as stored; noise (crop, noise_dim)."""

    mix: NDArray[np.float16]
    target: NDArray[np.float16]
    noise: NDArray[np.float32]
    generator_class: int
    discriminator_class: int
    redraws: int
    silent: bool  # kept although no mix that was tried met the silence rule


@dataclass(frozen=True)
class Batch:
    """Pairs, normalised: the tensors of Draw with B in front, float32; classes (B,) int64; counts of the bad luck."""

    mix: Tensor
    target: Tensor
    noise: Tensor
    generator_class: Tensor
    discriminator_class: Tensor
    redraws: int
    silent: int

    @property
    def heard(self) -> Tensor:
        """The mix as the generator hears it, `anticipation` frames before what it plays."""
        return self.mix[:, : self.target.shape[1]]

    def beside(self, alignment: Literal["wall", "generator"]) -> Tensor:
        """The mix as the discriminator sees it: sounding together with the target, or heard when it was made."""
        return self.mix[:, -self.target.shape[1] :] if alignment == "wall" else self.heard

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return replace(self, **moved)


def active_shares(
    levels: NDArray[np.float16], starts: NDArray[np.int64], frames: int, levels_a_frame: float, silence_db: float
) -> NDArray[np.float64]:
    """For crops of `frames` latents at `starts`: the share of 50 Hz levels (T50,) that are above `silence_db`."""
    first = np.minimum(np.rint(starts * levels_a_frame).astype(np.int64), len(levels) - 1)
    last = np.clip(np.rint((starts + frames) * levels_a_frame).astype(np.int64), first + 1, len(levels))
    offset = int(first.min())
    active = levels[offset : int(last.max())] > silence_db
    total = np.concatenate([[0], np.cumsum(active)])
    return np.asarray((total[last - offset] - total[first - offset]) / (last - first))


def draw_mix(members: list[list[int]], stems: int, target: int, law: SizeLaw, rng: np.random.Generator) -> int:
    """The row of a stream without the target: a size by the law, then one of the streams nearest to that size.

    Not each size is stored for each target; of two sizes equally near, the larger is taken.
    """
    wanted = stems - 1 if law == "all" else int(rng.integers(1, stems))
    rows = [row for row, subset in enumerate(members) if target not in subset]
    size = min((len(members[row]) for row in rows), key=lambda size: (abs(size - wanted), -size))
    return int(rng.choice([row for row in rows if len(members[row]) == size]))


@dataclass(frozen=True)
class Pairs:
    """The training split as an index of pairs: `index` is (N, 3) int64 of record, stem, first start of the block."""

    dataset: Dataset
    config: Config
    index: NDArray[np.int64]
    levels_a_frame: float
    law: SizeLaw
    mix_scale: Scale
    target_scale: Scale

    @classmethod
    def of(cls, dataset: Dataset, config: Config) -> Self:
        """Reads the levels of every stem of the train split. Raises DataError where nothing can be drawn."""
        if "train" not in dataset.splits or not len(train := dataset.split("train")):
            raise DataError(f"the dataset has no train split (it has {', '.join(dataset.splits) or 'none'}); build one")
        levels_a_frame = dataset.index["levels_rate_hz"] / dataset.codec["frame_rate"]
        mixing = dataset.index["config"].get("mixing", {})
        index = _index(train, config, levels_a_frame, mixing.get("exclude_targets", []))
        # where no song has three stems, the mix is the other stem
        role = "mix" if dataset.statistics["train"]["mix"]["frames"] else "stem"
        scales = Scale.of(dataset.moments(role)), Scale.of(dataset.moments("stem"))
        return cls(train, config, index, levels_a_frame, mixing.get("size_law", "uniform"), *scales)

    def __len__(self) -> int:
        return len(self.index)

    def classes(self) -> dict[str, int]:
        """How many pairs have a target of which class."""
        records = {number: self.dataset[number].meta["instruments"] for number in np.unique(self.index[:, 0]).tolist()}
        return dict(Counter(records[record][stem] for record, stem, _ in self.index.tolist()))

    def draw(self, index: int, rng: np.random.Generator) -> Draw:
        number, stem, first = self.index[index].tolist()
        record, c = self.dataset[number], self.config.batches
        row, start, redraws, silent = self._cut(record, stem, first, rng)
        shift, end = c.anticipation_frames, start + c.anticipation_frames + c.crop_frames
        null, name = len(self.dataset.classes), record.meta["instruments"][stem]
        instrument = list(self.dataset.classes).index(name)
        return Draw(
            mix=np.array(_stream(record, row)[start:end]),
            target=np.array(record["stems"][stem, start + shift : end]),
            noise=rng.standard_normal((c.crop_frames, self.config.generator.noise_dim), dtype=np.float32),
            generator_class=null if rng.random() < self.config.generator.class_dropout else instrument,
            discriminator_class=null if rng.random() < self.config.discriminator.class_dropout else instrument,
            redraws=redraws,
            silent=silent,
        )

    def collate(self, draws: list[Draw]) -> Batch:
        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(draw, name) for draw in draws]))

        return Batch(
            mix=self.mix_scale.normalise(stack("mix")),
            target=self.target_scale.normalise(stack("target")),
            noise=stack("noise"),
            generator_class=stack("generator_class"),
            discriminator_class=stack("discriminator_class"),
            redraws=sum(draw.redraws for draw in draws),
            silent=sum(draw.silent for draw in draws),
        )

    def _cut(self, record: Record, stem: int, first: int, rng: np.random.Generator) -> tuple[int, int, int, bool]:
        """A mix and a start at which it and the shifted target sound: row, start, redraws, whether that failed."""
        c = self.config.batches
        starts = _starts(record, self.config, first, c.crop_frames)
        starts = starts[self._sounds(record["levels"][stem], starts + c.anticipation_frames)]
        for redraws in range(c.redraws + 1):
            row = draw_mix(record.meta["members"], record.meta["n_stems"], stem, self.law, rng)
            both = starts[self._sounds(record["levels"][row], starts)]
            if len(both):
                return row, int(rng.choice(both)), redraws, False
        return row, int(rng.choice(starts)), redraws, True

    def _sounds(self, levels: NDArray[np.float16], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        c = self.config.batches
        shares = active_shares(levels, starts, c.crop_frames, self.levels_a_frame, c.silence_db)
        return np.asarray(shares >= c.active_share)


def _index(train: Dataset, config: Config, levels_a_frame: float, excluded: list[str]) -> NDArray[np.int64]:
    """Every block that holds a start at which its stem sounds; DataError says why there is none."""
    c = config.batches
    longest = max(record.meta["frames"] for record in train)
    needed = c.crop_frames + c.anticipation_frames
    if longest < needed:
        raise DataError(
            f"batches.crop_frames + anticipation_frames is {needed}, and the longest song of the train split has "
            f"{longest} frames; lower batches.crop_frames, or build from longer songs"
        )
    rows: list[tuple[int, int, int]] = []
    for number, record in enumerate(train):
        starts = _starts(record, config, 0, record.meta["frames"])
        stems = enumerate(record.meta["instruments"] if len(starts) and record.meta["n_stems"] > 1 else [])
        for stem in [stem for stem, name in stems if name not in excluded]:
            shifted = starts + c.anticipation_frames
            shares = active_shares(record["levels"][stem], shifted, c.crop_frames, levels_a_frame, c.silence_db)
            blocks = np.unique(np.flatnonzero(shares >= c.active_share) // c.crop_frames)
            rows += [(number, stem, block * c.crop_frames) for block in blocks.tolist()]
    if not rows:
        raise DataError(
            f"the train split's {len(train)} songs hold no pair of mix and target: a song of {needed} frames or more, "
            f"with two stems, one of which sounds in {c.active_share:.0%} of a crop; build with more songs or stems"
        )
    return np.array(rows, dtype=np.int64)


def _starts(record: Record, config: Config, first: int, count: int) -> NDArray[np.int64]:
    """The starts from `first` on, at most `count`, from which mix and shifted target reach their end."""
    last = record.meta["frames"] - config.batches.crop_frames - config.batches.anticipation_frames
    return np.arange(first, min(first + count, last + 1))


def _stream(record: Record, row: int) -> NDArray[np.float16]:
    """The latents (T, dim) of a row of `members`: stems first, then mixes."""
    stems = record.meta["n_stems"]
    return np.asarray(record["stems"][row] if row < stems else record["mixes"][row - stems])
