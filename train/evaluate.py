"""Whether a model hears its mix: what it plays to the right one is to agree with it better than what it plays to
another song's.

What real songs reach stands beside it: their targets with their own mixes, and with others. All of it is decoded from
latents, so that the codec is in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prep.codecs import Codec
from shards import Dataset
from train.agreement import chroma_agreement, onset_agreement
from train.checkpoint import Checkpoint, check_codec
from train.errors import DataError
from train.sound import Audio
from train.validation import Pair, find_pairs, generate

MEASURES: dict[str, Callable[[Audio, Audio, int], float]] = {"chroma": chroma_agreement, "onset": onset_agreement}
UNPITCHED = ("Percussive", "Sound Effects")  # targets that have no chroma to agree with
ROWS = {
    "real": "real target, its mix",
    "real_other": "real target, another's",
    "played": "played to its mix",
    "played_other": "played to another's",
}
DRAWS = 2000


@dataclass(frozen=True)
class Scores:
    """`values` has by measure and row a number a pair, NaN where the measure says nothing of it; `songs` has each
    pair's song, by which the intervals are drawn: pairs of one song are not independent."""

    songs: tuple[str, ...]
    values: dict[str, dict[str, NDArray[np.float64]]]

    def difference(self, measure: str, role: str) -> NDArray[np.float64]:
        """A pair's score with its own mix less that with another's; `role` is real or played."""
        return self.values[measure][role] - self.values[measure][f"{role}_other"]

    def mean(self, values: NDArray[np.float64], seed: int = 0) -> tuple[float, float, float]:
        """The mean over pairs, and the ends of its 95 % interval from songs drawn with replacement."""
        names = sorted(set(self.songs))
        known = [values[[song == name for song in self.songs]] for name in names]
        totals = np.array([[np.nansum(song), np.isfinite(song).sum()] for song in known])
        drawn = totals[np.random.default_rng(seed).integers(len(names), size=(DRAWS, len(names)))].sum(axis=1)
        means = drawn[drawn[:, 1] > 0, 0] / drawn[drawn[:, 1] > 0, 1]
        if not len(means):
            return (float("nan"),) * 3
        low, high = np.percentile(means, [2.5, 97.5])
        return float(np.nanmean(values)), float(low), float(high)

    def table(self) -> str:
        head = "".join(f"{name:>11} {'95 %':<15}" for name in self.values)
        lines = [f"{'agreement with the mix':<24}{head}"]
        for row, name in ROWS.items():
            lines.append(f"{name:<24}" + "".join(self._cell(each[row]) for each in self.values.values()))
        for role, name in (("real", "real: its less other"), ("played", "played: its less other")):
            lines.append(f"{name:<24}" + "".join(self._cell(self.difference(each, role)) for each in self.values))
        counts = ", ".join(f"{np.isfinite(each['real']).sum()} {name}" for name, each in self.values.items())
        return "\n".join([*lines, f"pairs of {len(set(self.songs))} songs: {counts}"])

    def _cell(self, values: NDArray[np.float64]) -> str:
        mean, low, high = self.mean(values)
        return f"{mean:>11.3f} {f'{low:.3f} … {high:.3f}':<15}"


def evaluate(
    checkpoint: Checkpoint, dataset: Dataset, codec: Codec, split: str, seconds: float, most: int, seed: int = 0
) -> Scores:
    """Over at most `most` pairs of the split, `seconds` long each, drawn by `seed`. Raises RunError for another codec,
    DataError for a split with no such pairs, or of one song."""
    check_codec(checkpoint, dataset.codec, "the dataset")
    check_codec(checkpoint, codec.identity.to_json(), "the player")
    frames = max(1, round(seconds * codec.identity.frame_rate))
    pairs = find_pairs(dataset, split, checkpoint.config.batches, frames, most, seed)
    others = another_song(pairs, seed)
    scales, generator = (checkpoint.mix_scale, checkpoint.target_scale), checkpoint.player()
    swapped = [replace(pair, mix=other.mix) for pair, other in zip(pairs, others, strict=True)]
    played, played_other = (
        generate(generator, scales, each, list(checkpoint.classes), seed) for each in (pairs, swapped)
    )
    rows: dict[str, dict[str, list[float]]] = {name: {row: [] for row in ROWS} for name in MEASURES}
    for number, (pair, other) in enumerate(zip(pairs, others, strict=True)):
        target, mix, another = (_decoded(codec, _tensor(x)) for x in (pair.target, pair.beside, other.beside))
        right, wrong = (_decoded(codec, each[number]) for each in (played, played_other))
        couples = {"real": (target, mix), "real_other": (target, another), "played": (right, mix)}
        couples["played_other"] = (wrong, mix)
        for name, measure in MEASURES.items():
            says = name != "chroma" or pair.instrument not in UNPITCHED
            for row, (a, b) in couples.items():
                rows[name][row].append(measure(a, b, codec.identity.sample_rate) if says else np.nan)
    values = {name: {row: np.array(found) for row, found in each.items()} for name, each in rows.items()}
    return Scores(tuple(pair.song for pair in pairs), values)


def another_song(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """For each pair one of another song, drawn. Raises DataError where all are of one."""
    rng, others = np.random.default_rng([seed, 1]), []
    for pair in pairs:
        strangers = [other for other in pairs if other.song != pair.song]
        if not strangers:
            raise DataError(f"all pairs are of {pair.song}; an evaluation takes two songs: choose another --split")
        others.append(strangers[int(rng.integers(len(strangers)))])
    return others


def _tensor(latents: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(latents).float()


@torch.inference_mode()
def _decoded(codec: Codec, latents: Tensor) -> Audio:
    """(frames, dim) -> (channels, samples)."""
    return np.asarray(codec.decode(latents[None])[0].numpy())
