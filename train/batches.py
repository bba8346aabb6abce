"""Training pairs: what the generator hears, what it should have played, and everything else that is drawn by chance.

The index runs over (target stem, block of starts at which it sounds together with some mix), so that an epoch visits
each once. For an index, the mix, the start, the noise and the class dropout come from the generator that the loader
keys by (seed, epoch, index).

Time: a pair that starts at frame s with anticipation a gives the generator the mix s .. s + crop - 1, of which it
makes the accompaniment s + a .. s + a + crop - 1: what sounds at t + a has heard the mix up to t. A start is valid when
both sound, the one at t and the other at t + a, in `active_share` of the crop; no other start is ever drawn.

In `start_share` of draws a song's true start takes the index's place, s = 0, as when a performance begins: any of those
that are valid for some target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards import Dataset, Moments, Order, Record
from train.conditions import Conditions
from train.config import Config
from train.errors import DataError
from train.pairing import Law, draw_row, index_pairs, starts_of, valid_starts


@dataclass(frozen=True)
class Scale:
    """Statistics over the training split: mean and standard deviation a channel, each (dim,)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, moments: Moments) -> Self:
        return cls(torch.from_numpy(moments.mean), torch.from_numpy(moments.std))

    @classmethod
    def pooled(cls, roles: Iterable[dict[str, Any]]) -> Self:
        """Of all roles together, which dataset.json tells one by one: frames, mean and std."""
        told = [role for role in roles if role["frames"]]
        shares = np.array([role["frames"] for role in told])[:, None] / sum(role["frames"] for role in told)
        means, deviations = (np.array([role[name] for role in told]) for name in ("mean", "std"))
        mean = (shares * means).sum(axis=0)
        std = np.sqrt((shares * (deviations**2 + (means - mean) ** 2)).sum(axis=0))
        std[std == 0] = 1.0
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(std).float())

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
    redraws: int  # mixes that were drawn and had no valid start
    song_start: bool  # whether it begins where the song does
    generator_vector: NDArray[np.float32] | None  # (vector_dim,), see train/conditions.py
    discriminator_vector: NDArray[np.float32] | None


@dataclass(frozen=True)
class Batch:
    """Pairs, normalised: the tensors of Draw with B in front, float32; classes (B,) int64; counts in all."""

    mix: Tensor
    target: Tensor
    noise: Tensor
    generator_class: Tensor
    discriminator_class: Tensor
    redraws: int
    song_starts: int
    generator_vector: Tensor | None = None
    discriminator_vector: Tensor | None = None

    @property
    def heard(self) -> Tensor:
        """The mix as the generator hears it, `anticipation` frames before what it plays."""
        return self.mix[:, : self.target.shape[1]]

    def beside(self, alignment: Literal["wall", "generator"]) -> Tensor:
        """The mix as the discriminator sees it: sounding together with the target, or heard when it was made."""
        return self.mix[:, -self.target.shape[1] :] if alignment == "wall" else self.heard

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from by itself; the loader asks for it where there is one."""
        return self._each(torch.Tensor.pin_memory)

    def __len__(self) -> int:
        return len(self.target)

    def split(self, size: int) -> list[Batch]:
        """In order, parts of at most `size` pairs; 0 is all. The counts stay the whole's."""
        size = size or len(self)
        parts = [slice(first, first + size) for first in range(0, len(self), size)]
        return [self._each(itemgetter(part)) for part in parts]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: change(value) for name, value in vars(self).items() if torch.is_tensor(value)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Pairs:
    """The training split as an index of pairs: `index` is (N, 3) int64 of record, stem, first start of the block,
    `song_starts` (M, 2) of record, stem.

    `classes` is how many pairs have a target of which class; `dropped` how many of the target stems have no valid start
    with any stream, and so are never drawn.
    """

    dataset: Dataset
    config: Config
    index: NDArray[np.int64]
    song_starts: NDArray[np.int64]
    classes: dict[str, int]
    dropped: int
    levels_a_frame: float
    law: Law
    mix_scale: Scale
    target_scale: Scale
    conditions: Conditions | None

    @classmethod
    def of(cls, dataset: Dataset, config: Config) -> Self:
        """Reads the levels of every stream of the train split, shard after shard, once. Raises DataError where nothing
        can be drawn."""
        if size := dataset.codec.get("codebook_size"):
            raise DataError(
                f"the dataset holds tokens of codec {dataset.codec['name']}, 0 to {size - 1}, which are no numbers to "
                "generate; build one with a codec of continuous latents, such as causal"
            )
        if "train" not in dataset.splits or not len(train := dataset.split("train")):
            raise DataError(f"the dataset has no train split (it has {', '.join(dataset.splits) or 'none'}); build one")
        levels_a_frame = dataset.index["levels_rate_hz"] / dataset.codec["frame_rate"]
        c = config.batches
        law = Law.of(dataset.index, c)
        conditions = Conditions.read(Path(c.conditions), c.condition_dim) if c.conditions else None
        index = index_pairs(train, c, levels_a_frame, law)
        return cls(train, config, *index, levels_a_frame, law, *_scales(dataset, c.statistics), conditions)

    def __len__(self) -> int:
        return len(self.index)

    def order(self) -> Order:
        """For a Loader over this index."""
        return self.dataset.order(np.bincount(self.index[:, 0], minlength=len(self.dataset)).tolist())

    @property
    def targets(self) -> int:
        """How many stems may be targets, those that are never drawn included."""
        return len(np.unique(self.index[:, :2], axis=0)) + self.dropped

    def draw(self, index: int, rng: np.random.Generator) -> Draw:
        c, (number, stem, first) = self.config.batches, self.index[index].tolist()
        count = c.crop_frames
        if rng.random() < c.start_share and len(self.song_starts):
            (number, stem), first, count = rng.choice(self.song_starts).tolist(), 0, 1
        record = self.dataset[number]
        row, start, redraws = self._cut(record, stem, starts_of(record, c, first, count), rng)
        shift, end = c.anticipation_frames, start + c.anticipation_frames + c.crop_frames
        null = len(self.dataset.classes)
        instrument = list(self.dataset.classes).index(record.meta["instruments"][stem])
        generator, discriminator = self.config.generator, self.config.discriminator
        return Draw(
            mix=np.array(_stream(record, row)[start:end]),
            target=np.array(record["stems"][stem, start + shift : end]),
            noise=rng.standard_normal((c.crop_frames, generator.noise_dim), dtype=np.float32),
            generator_class=null if rng.random() < generator.class_dropout else instrument,
            discriminator_class=null if rng.random() < discriminator.class_dropout else instrument,
            redraws=redraws,
            song_start=start == 0,
            generator_vector=self._vector(record, stem, generator.condition_dropout, rng),
            discriminator_vector=self._vector(record, stem, discriminator.condition_dropout, rng),
        )

    def collate(self, draws: list[Draw]) -> Batch:
        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(draw, name) for draw in draws]))

        given = ("generator_vector", "discriminator_vector") if self.conditions else ()
        return Batch(
            mix=self.mix_scale.normalise(stack("mix")),
            target=self.target_scale.normalise(stack("target")),
            noise=stack("noise"),
            generator_class=stack("generator_class"),
            discriminator_class=stack("discriminator_class"),
            redraws=sum(draw.redraws for draw in draws),
            song_starts=sum(draw.song_start for draw in draws),
            **{name: stack(name) for name in given},
        )

    def _vector(
        self, record: Record, stem: int, dropout: float, rng: np.random.Generator
    ) -> NDArray[np.float32] | None:
        if not self.conditions:
            return None
        vector = self.conditions.of(record.id, record.meta["stems"][stem])
        return np.full_like(vector, np.nan) if rng.random() < dropout else vector

    def _cut(
        self, record: Record, stem: int, starts: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """A mix, one of `starts` that is valid with it, and how many mixes were drawn that have none."""
        c, levels, members = self.config.batches, record["levels"], record.meta["members"]

        def valid(row: int) -> NDArray[np.int64]:
            return valid_starts(levels[row], levels[stem], starts, c, self.levels_a_frame)

        rows, law = self.law.heard(record, stem)
        for redraws in range(c.redraws + 1):
            row = draw_row(members, rows, law, rng)
            if len(found := valid(row)):
                return row, int(rng.choice(found)), redraws
        # block or song start, it was listed because there is such a row
        row = int(rng.choice([row for row in rows if len(valid(row))]))
        return row, int(rng.choice(valid(row))), redraws + 1


def _scales(dataset: Dataset, kind: Literal["role", "pooled"]) -> tuple[Scale, Scale]:
    """The mix's and the target's."""
    told = dataset.statistics["train"]
    if kind == "pooled":
        return (Scale.pooled([told["stem"], told["mix"]]),) * 2
    # where no song has three stems, the mix is the other stem
    return Scale.of(dataset.moments("mix" if told["mix"]["frames"] else "stem")), Scale.of(dataset.moments("stem"))


def _stream(record: Record, row: int) -> NDArray[np.float16]:
    """The latents (T, dim) of a row of `members`: stems first, then mixes."""
    stems = record.meta["n_stems"]
    return np.asarray(record["stems"][row] if row < stems else record["mixes"][row - stems])
