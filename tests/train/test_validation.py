from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from tests.train.made import CLASSES, DIM, LEVELS_A_FRAME, example, small, write
from train.batches import Scale
from train.errors import DataError
from train.game import Game
from train.validation import Pair, find_pairs, generate

MEMBERS = ((0, 1), (1, 2), (0, 2))
BATCHES = small(batches={"anticipation_frames": 2}).batches


def dataset(tmp: Path, **options: object) -> shards.Dataset:
    songs = [example(f"v{number}", members=MEMBERS, split="validation", **options) for number in range(2)]
    return shards.open(write(tmp / "out", [example("t0", members=MEMBERS), *songs]))


def test_pairs_are_of_the_split_and_hear_the_fullest_mix_without_the_target(tmp_path: Path) -> None:
    pairs = find_pairs(dataset(tmp_path), "validation", BATCHES, frames=8, most=100)
    assert {pair.song for pair in pairs} == {"v0", "v1"}
    assert {(pair.stem, int(pair.mix[0, 0]), pair.instrument) for pair in pairs} == {
        ("S00", 3 + 1, "Piano"),  # rows: three stems, then the mixes
        ("S01", 3 + 2, "Bass"),
        ("S02", 3 + 0, "Percussive"),
    }


def test_what_is_heard_comes_before_what_sounds_together(tmp_path: Path) -> None:
    for pair in find_pairs(dataset(tmp_path), "validation", BATCHES, frames=8, most=100):
        assert pair.heard[:, 1].tolist() == list(range(pair.start, pair.start + 8))
        assert pair.beside[:, 1].tolist() == pair.target[:, 1].tolist() == list(range(pair.start + 2, pair.start + 10))


def test_pairs_of_a_target_do_not_overlap_and_each_song_is_used_up(tmp_path: Path) -> None:
    pairs = find_pairs(dataset(tmp_path), "validation", BATCHES, frames=8, most=100)
    starts = [pair.start for pair in pairs if (pair.song, pair.stem) == ("v1", "S01")]
    assert starts == [0, 8, 16, 24]  # 40 frames, of which the last two are only heard ahead


def test_the_seed_draws_and_the_same_draws_the_same(tmp_path: Path) -> None:
    found = [
        find_pairs(dataset(tmp_path / str(i)), "validation", BATCHES, 8, 5, seed) for i, seed in enumerate((1, 1, 2))
    ]
    names = [[(pair.song, pair.stem, pair.start) for pair in pairs] for pairs in found]
    assert names[0] == names[1] != names[2] and len(names[0]) == 5


def test_silent_stretches_are_no_pairs(tmp_path: Path) -> None:
    levels = np.full((6, int(np.ceil(40 * LEVELS_A_FRAME))), -20.0)
    levels[1, : int(20 * LEVELS_A_FRAME)] = -90.0  # the bass enters in the middle
    pairs = find_pairs(dataset(tmp_path, levels=levels), "validation", BATCHES, frames=8, most=100)
    assert min(pair.start for pair in pairs if pair.stem == "S01") > 12
    assert min(pair.start for pair in pairs if pair.stem == "S00") == 0


def test_splits_without_pairs_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the dataset has no test split \(it has train, validation\)"):
        find_pairs(dataset(tmp_path / "a"), "test", BATCHES, 8, 4)
    with pytest.raises(DataError, match=r"no song of the validation split has a target and a mix that sound for 8.4 s"):
        find_pairs(dataset(tmp_path / "b"), "validation", BATCHES, 90, 4)


def test_what_is_generated_follows_the_mix_and_the_class_and_repeats() -> None:
    generator = Game.new(small(), DIM, len(CLASSES)).generator
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    scales = Scale(torch.tensor(0.1), torch.tensor(0.5)), Scale(torch.tensor(-0.2), torch.tensor(0.3))
    rng = np.random.default_rng(0)
    mix, other = rng.normal(size=(2, 9, DIM)).astype(np.float16)
    pair = Pair("song", "S00", "Bass", 0, mix, mix[1:])
    (one,), (again,) = (generate(generator, scales, [pair], CLASSES, seed=4) for _ in range(2))
    assert one.shape == (8, DIM) and one.dtype == torch.float32 and torch.equal(one, again)
    drawn = torch.Generator().manual_seed(4 * 1_000_003)
    noise = torch.randn(1, 8, 3, generator=drawn)
    heard = torch.from_numpy(mix[:8]).float()[None]
    torch.testing.assert_close(one, 0.3 * generator((heard - 0.1) / 0.5, noise, torch.tensor([1]))[0].detach() - 0.2)
    for changed in (Pair("song", "S00", "Piano", 0, mix, mix[1:]), Pair("song", "S00", "Bass", 0, other, mix[1:])):
        assert not torch.allclose(one, generate(generator, scales, [changed], CLASSES, seed=4)[0])
