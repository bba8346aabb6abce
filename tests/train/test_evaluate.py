from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import shards
from tests.train.made import RATE, LinearCodec, example, write
from tests.train.test_agreement import chords
from tests.train.test_live import trained
from train import evaluate as module
from train.checkpoint import Checkpoint
from train.errors import DataError, RunError
from train.evaluate import Scores, another_song, evaluate
from train.validation import Pair

CODEC = LinearCodec()


def scores(real: list[float], other: list[float], songs: tuple[str, ...]) -> Scores:
    row = {
        "real": np.array(real),
        "real_other": np.array(other),
        "played": np.array(real),
        "played_other": np.array(other),
    }
    return Scores(songs, {"chroma": row})


def test_means_and_intervals_are_of_what_is_known_and_drawn_by_song() -> None:
    made = scores([0.4, 0.6, np.nan, 0.8], [0.1, 0.3, np.nan, 0.5], ("a", "a", "b", "b"))
    mean, low, high = made.mean(made.values["chroma"]["real"])
    assert mean == pytest.approx(0.6) and (low, high) == pytest.approx((0.5, 0.8))  # a twice, b twice
    assert made.mean(made.difference("chroma", "played")) == pytest.approx((0.3, 0.3, 0.3))
    assert made.mean(made.values["chroma"]["real"]) == made.mean(made.values["chroma"]["real"])


def test_an_interval_holds_the_mean_of_many_songs_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        values = rng.normal(0.3, 1.0, 40)
        _, low, high = scores([0.0] * 40, [0.0] * 40, tuple(map(str, range(40)))).mean(values)
        hits += low < 0.3 < high
    assert 86 <= hits <= 100


def test_the_table_has_a_row_for_each_and_says_of_how_many() -> None:
    table = scores([0.4, 0.6, np.nan, 0.8], [0.1, 0.3, np.nan, 0.5], ("a", "a", "b", "b")).table().splitlines()
    assert table[0].split() == ["agreement", "with", "the", "mix", "chroma", "95", "%"]
    assert table[1].split() == ["real", "target,", "its", "mix", "0.600", "0.500", "…", "0.800"]
    assert table[6].split()[-4:] == ["0.300", "0.300", "…", "0.300"]
    assert table[7] == "pairs of 2 songs: 3 chroma"


def pair(song: str, start: int = 0) -> Pair:
    return Pair(song, "S00", "Bass", start, np.zeros((9, 4), np.float16), np.zeros((8, 4), np.float16))


def test_another_mix_is_of_another_song() -> None:
    pairs = [pair("a"), pair("a", 8), pair("b"), pair("c")]
    others = another_song(pairs, 0)
    assert len(others) == 4 and all(one.song != other.song for one, other in zip(pairs, others, strict=True))
    with pytest.raises(DataError, match="all pairs are of a; an evaluation takes two songs"):
        another_song([pair("a"), pair("a", 8)], 0)


@dataclass(frozen=True)
class Echo:
    """A codec whose latents name a sound: channel 3 is how far chords are transposed, or 99 for silence."""

    identity: object = CODEC.identity

    def decode(self, latents: Tensor) -> Tensor:
        transposed = float(latents[0, :, 3].mean())
        sound = chords(round(transposed)) if transposed < 50 else np.zeros((2, 8 * RATE), np.float32)
        return torch.from_numpy(sound)[None]


def dataset(tmp: Path) -> shards.Dataset:
    """Songs in three keys, each in one."""
    songs = []
    for number, key in enumerate((0, 1, 6)):
        made = example(f"v{number}", members=((0, 1), (1, 2), (0, 2)), frames=120, split="validation")
        made.stems[..., 3], made.mixes[..., 3] = key, key
        songs.append(made)
    return shards.open(write(tmp / "out", [example("t0", members=((0, 1),)), *songs]))


def follows(checkpoint: Checkpoint, listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that plays what it hears, or always the same."""

    def generate(generator: object, scales: object, pairs: list[Pair], classes: list[str], seed: int) -> list[Tensor]:
        return [torch.from_numpy(pair.heard).float() * (1 if listens else 0) for pair in pairs]

    monkeypatch.setattr(module, "generate", generate)


@pytest.mark.parametrize("listens", [True, False])
def test_who_follows_the_mix_scores_better_with_its_own(
    listens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained()
    follows(checkpoint, listens, monkeypatch)
    found = evaluate(checkpoint, dataset(tmp_path), Echo(), "validation", 8.0, 24)  # type: ignore[arg-type]
    chroma = found.values["chroma"]
    percussive = np.isnan(chroma["real"])
    assert 0 < percussive.sum() < len(percussive)  # drums have no harmony
    assert np.isfinite(found.values["onset"]["real"]).all() and len(found.songs) == 9
    assert np.nanmin(chroma["real"]) > 0.99 and np.nanmax(chroma["real_other"]) < 0.6
    assert found.mean(found.difference("chroma", "real"))[1] > 0.3
    mean, low, high = found.mean(found.difference("chroma", "played"))
    assert low > 0.3 if listens else (mean, low, high) == (0, 0, 0)


def test_the_same_seed_measures_the_same(tmp_path: Path) -> None:
    first, again, other = (
        evaluate(trained(), dataset(tmp_path / str(n)), CODEC, "validation", 2.0, 6, seed).table()
        for n, seed in enumerate((1, 1, 2))
    )
    assert first == again != other


def test_another_codec_is_told(tmp_path: Path) -> None:
    strange = replace(trained(), codec={**trained().codec, "weights": "v"})
    with pytest.raises(RunError, match="the dataset's codec is not the one that the checkpoint was trained on"):
        evaluate(strange, dataset(tmp_path), CODEC, "validation", 2.0, 6)
