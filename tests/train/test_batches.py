from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Dataset
from shards import open as open_dataset
from tests.train.made import DIM, LEVELS_A_FRAME, example, small, songs, write
from train.batches import Pairs, active_shares, draw_mix
from train.errors import DataError


def pairs_of(out: Path, **batches: Any) -> Pairs:
    return Pairs.of(open_dataset(out), small(batches={"crop_frames": 8, **batches}))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_target_is_ahead_of_the_heard_mix_and_beside_the_sounding_one(tmp_path: Path, ahead: int) -> None:
    pairs = pairs_of(songs(tmp_path), anticipation_frames=ahead)
    draws = [pairs.draw(index, rng(index)) for index in range(len(pairs))]
    batch = pairs.collate(draws)
    clock = pairs.mix_scale.restore(batch.mix)[..., 1]
    target = pairs.target_scale.restore(batch.target)[..., 1]
    heard = pairs.mix_scale.restore(batch.heard)[..., 1]
    wall = pairs.mix_scale.restore(batch.beside("wall"))[..., 1]
    assert batch.mix.shape == (len(pairs), 8 + ahead, DIM)
    assert batch.target.shape == (len(pairs), 8, DIM)
    torch.testing.assert_close(clock[:, -1], target[:, -1])
    torch.testing.assert_close(target, heard + ahead, atol=1e-4, rtol=0)
    torch.testing.assert_close(target, wall, atol=1e-4, rtol=0)
    assert torch.equal(batch.beside("generator"), batch.heard)


def test_the_target_is_the_indexed_stem_and_never_in_the_mix(tmp_path: Path) -> None:
    pairs = pairs_of(songs(tmp_path))
    for index in range(len(pairs)):
        record, stem, first = pairs.index[index].tolist()
        draw = pairs.draw(index, rng(index))
        members = pairs.dataset[record].meta["members"]
        assert (draw.target[:, 0] == stem).all()
        assert stem not in members[int(draw.mix[0, 0])]
        assert first <= draw.mix[0, 1] < first + 8


def test_every_stem_and_every_start_is_in_the_index_once(tmp_path: Path) -> None:
    out = write(tmp_path, [example("a", stems=2, frames=30), example("b", stems=3, frames=10)])
    # starts 0 … 21 are three blocks of 8, starts 0 … 1 one
    wanted = [(0, stem, first) for stem in range(2) for first in (0, 8, 16)] + [(1, stem, 0) for stem in range(3)]
    assert [tuple(row) for row in pairs_of(out).index.tolist()] == wanted


def test_sizes_follow_the_law_where_all_are_stored() -> None:
    members = [[i] for i in range(5)] + [[0, 1], [1, 2], [1, 2, 3], [0, 1, 2, 3], [2, 3, 4]]
    generator = rng()
    rows = [draw_mix(members, 5, 4, "uniform", generator) for _ in range(8000)]
    sizes = Counter(len(members[row]) for row in rows)
    expected = 8000 / 4
    chi_square = sum((sizes[size] - expected) ** 2 / expected for size in (1, 2, 3, 4))
    assert chi_square < 16.27  # three degrees of freedom, p = 0.001
    assert {row for row in rows if len(members[row]) == 2} == {5, 6}
    assert {draw_mix(members, 5, 4, "all", generator) for _ in range(20)} == {8}


def test_a_size_that_is_not_stored_gives_the_nearest_and_of_two_the_larger() -> None:
    members = [[i] for i in range(5)] + [[0, 1, 2]]
    sizes = Counter(len(members[draw_mix(members, 5, 4, "uniform", rng(seed))]) for seed in range(400))
    assert set(sizes) == {1, 3}
    assert sizes[3] / 400 == pytest.approx(3 / 4, abs=0.08)


def test_shares_of_active_levels_are_those_counted_by_hand() -> None:
    levels = np.full(200, -120.0, np.float16)
    levels[50:120] = -30
    starts = np.array([0, 7, 11, 25, 30])
    wanted = []
    for start in starts:
        first, last = round(start * LEVELS_A_FRAME), round((start + 8) * LEVELS_A_FRAME)
        wanted.append(float(np.mean(levels[first:last] > -60)))
    found = active_shares(levels, starts, 8, LEVELS_A_FRAME, -60.0)
    np.testing.assert_allclose(found, wanted)
    assert found.min() == 0 and found.max() == 1


def half_silent(stem: slice, mix: slice) -> np.ndarray:
    """Levels of stems 0, 1 and their song: stem 0 sounds in one slice of frames, stem 1 in the other."""
    levels = np.full((2, int(np.ceil(40 * LEVELS_A_FRAME))), -120.0)
    for row, frames in enumerate((stem, mix)):
        levels[row, round(frames.start * LEVELS_A_FRAME) : round(frames.stop * LEVELS_A_FRAME)] = -20
    return levels


def test_crops_sound_in_mix_and_shifted_target(tmp_path: Path) -> None:
    out = write(tmp_path, [example("a", stems=2, levels=half_silent(slice(10, 40), slice(0, 24)))])
    pairs = pairs_of(out, anticipation_frames=3)
    kept = 0
    for index, (_, stem, _) in enumerate(pairs.index.tolist()):
        for seed in range(20):
            draw = pairs.draw(index, rng(seed))
            if draw.silent:
                continue
            kept += 1
            start = int(draw.mix[0, 1])
            spans = {stem: start + 3, 1 - stem: start}
            sound = {0: range(10, 40), 1: range(0, 24)}
            for who, first in spans.items():
                assert sum(frame in sound[who] for frame in range(first, first + 8)) >= 4
    assert kept > 20


def test_blocks_without_target_are_no_pairs_and_silent_mixes_are_redrawn_and_counted(tmp_path: Path) -> None:
    out = write(tmp_path, [example("a", stems=2, levels=half_silent(slice(0, 16), slice(24, 40)))])
    pairs = pairs_of(out, redraws=5)
    assert {(stem, first) for _, stem, first in pairs.index.tolist()} == {(0, 0), (0, 8), (1, 16), (1, 24)}
    draw = pairs.draw(0, rng())
    assert (draw.redraws, draw.silent) == (5, True)
    batch = pairs.collate([draw, draw])
    assert (batch.redraws, batch.silent) == (10, 2)


def test_each_network_loses_the_class_by_its_own_chance(tmp_path: Path) -> None:
    config = small(generator={"class_dropout": 0.2}, discriminator={"class_dropout": 0.7})
    pairs = Pairs.of(open_dataset(songs(tmp_path)), config)
    draws = [pairs.draw(0, rng(seed)) for seed in range(600)]
    assert {draw.generator_class for draw in draws} == {0, 3}
    assert np.mean([draw.generator_class == 3 for draw in draws]) == pytest.approx(0.2, abs=0.06)
    assert np.mean([draw.discriminator_class == 3 for draw in draws]) == pytest.approx(0.7, abs=0.06)


def test_a_draw_is_a_function_of_its_generator(tmp_path: Path) -> None:
    pairs = pairs_of(songs(tmp_path))
    one, two, other = (pairs.draw(3, rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    assert not np.array_equal(one.noise, other.noise)
    assert one.noise.shape == (8, 3)


def test_latents_are_normalised_by_their_role_of_the_train_split(tmp_path: Path) -> None:
    far = [example("far", members=((0, 1),), split="test", frames=400)]
    dataset: Dataset = open_dataset(write(tmp_path, [example("a", members=((0, 1),)), example("b"), *far]))
    pairs = Pairs.of(dataset, small())
    train = list(dataset.split("train"))
    stems = torch.cat([torch.from_numpy(np.array(record["stems"])).flatten(0, 1) for record in train])
    mixes = torch.cat([torch.from_numpy(np.array(record["mixes"])).flatten(0, 1) for record in train])
    for scale, latents in ((pairs.target_scale, stems), (pairs.mix_scale, mixes)):
        normal = scale.normalise(latents)[:, 1:3]
        torch.testing.assert_close(normal.mean(dim=0), torch.zeros(2), atol=1e-3, rtol=0)
        torch.testing.assert_close(normal.std(dim=0, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)
        torch.testing.assert_close(scale.restore(scale.normalise(latents)), latents.float(), atol=1e-3, rtol=1e-3)
        assert scale.normalise(latents)[:, 3].abs().max() == 0  # a channel that never moves


def test_songs_of_two_stems_have_no_mixes_and_can_be_trained_on(tmp_path: Path) -> None:
    pairs = pairs_of(write(tmp_path, [example("a", stems=2)]))
    assert pairs.draw(0, rng()).mix[0, 0] == 1
    assert torch.equal(pairs.mix_scale.mean, pairs.target_scale.mean)


def test_excluded_targets_of_the_build_are_no_targets(tmp_path: Path) -> None:
    header = {"config": {"mixing": {"size_law": "all", "exclude_targets": ["Bass"]}}}
    pairs = pairs_of(write(tmp_path, [example("a", members=((0, 1), (1, 2)))], **header))
    assert pairs.classes().keys() == {"Piano", "Percussive"}
    assert pairs.law == "all"


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([example("a", split="test")], r"no train split \(it has test\)"),
        ([example("a", frames=8)], r"crop_frames \+ anticipation_frames is 9, .* longest song .* has 8 frames"),
        ([example("a", stems=1)], r"1 songs hold no pair of mix and target: .* 9 frames or more"),
        ([example("a", levels=np.full((3, 400), -90.0)[:, : int(np.ceil(40 * LEVELS_A_FRAME))])], r"hold no pair"),
    ],
)
def test_a_dataset_without_pairs_says_why(tmp_path: Path, examples: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pairs_of(write(tmp_path, examples))
