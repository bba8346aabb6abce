from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Dataset
from shards import open as open_dataset
from tests.train.made import DIM, LEVELS_A_FRAME, example, identity_json, small, songs, write
from train.batches import Pairs
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


def test_pooled_latents_are_normalised_by_all_streams_together(tmp_path: Path) -> None:
    examples = [example("a", members=((0, 1), (1, 2), (0, 2), (0, 1, 2))), example("b", frames=30)]
    dataset = open_dataset(write(tmp_path, examples))
    pairs = Pairs.of(dataset, small(batches={"statistics": "pooled"}))
    assert pairs.mix_scale is pairs.target_scale
    arrays = [torch.from_numpy(np.array(record[role])) for record in dataset for role in ("stems", "mixes")]
    together = torch.cat([array.flatten(0, 1) for array in arrays])
    assert (pairs.mix_scale.mean - Pairs.of(dataset, small()).mix_scale.mean).abs().max() > 0.5
    torch.testing.assert_close(pairs.mix_scale.mean, together.float().mean(dim=0), atol=1e-3, rtol=1e-3)
    deviations = together.float().std(dim=0, unbiased=False)
    deviations[3] = 1.0  # it never moves
    torch.testing.assert_close(pairs.mix_scale.std, deviations, atol=1e-3, rtol=1e-3)


def test_pooled_of_one_role_is_that_roles(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, [example("a", stems=2)]))
    pooled, alone = (Pairs.of(dataset, small(batches={"statistics": kind})) for kind in ("pooled", "role"))
    torch.testing.assert_close(pooled.mix_scale.mean, alone.target_scale.mean)
    torch.testing.assert_close(pooled.mix_scale.std, alone.target_scale.std)


def test_classes_are_counted_by_pairs(tmp_path: Path) -> None:
    levels = np.full((3, int(np.ceil(40 * LEVELS_A_FRAME))), -20.0)
    levels[1] = -90.0
    pairs = pairs_of(write(tmp_path, [example("a", levels=levels), example("b")]))
    names = [pairs.dataset[record].meta["instruments"][stem] for record, stem, _ in pairs.index.tolist()]
    assert pairs.classes == {name: names.count(name) for name in names} and set(names) == {
        "Piano",
        "Bass",
        "Percussive",
    }
    pairs = pairs_of(write(tmp_path / "a", [example("a", levels=levels)]))
    assert "Bass" not in pairs.classes


def test_songs_of_two_stems_have_no_mixes_and_can_be_trained_on(tmp_path: Path) -> None:
    pairs = pairs_of(write(tmp_path, [example("a", stems=2)]))
    assert pairs.draw(0, rng()).mix[0, 0] == 1
    assert torch.equal(pairs.mix_scale.mean, pairs.target_scale.mean)


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


def test_tokens_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, [example("a")], codec=identity_json(codebook_size=1024))
    with pytest.raises(DataError, match=r"holds tokens of codec made, 0 to 1023, .* such as causal"):
        pairs_of(data)


def test_a_batch_is_pinned_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for pinning, which needs a GPU."""
    pairs = pairs_of(songs(tmp_path / "out"))
    batch = pairs.collate([pairs.draw(index, rng()) for index in range(3)])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1000)
    found = batch.pin_memory()
    names = {name for name, value in vars(batch).items() if torch.is_tensor(value)}
    assert names == {"mix", "target", "noise", "generator_class", "discriminator_class"}
    assert all(torch.equal(getattr(found, name), getattr(batch, name) + 1000) for name in names)
    assert (found.redraws, found.song_starts) == (batch.redraws, batch.song_starts) and type(found) is type(batch)


def late(name: str, silent: int, stem: int) -> Any:
    """A song of 3 stems, one of which enters after `silent` of 40 frames."""
    levels = np.full((5, int(np.ceil(40 * LEVELS_A_FRAME))), -20.0)
    levels[stem, : int(silent * LEVELS_A_FRAME)] = -90.0
    return example(name, members=((0, 1), (1, 2)), levels=levels)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_of_crops_starts_where_the_song_does(tmp_path: Path, share: float) -> None:
    pairs = pairs_of(write(tmp_path, [late("a", 20, 1), late("b", 0, 0)]), start_share=share)
    assert pairs.song_starts.tolist() == [[0, 0], [0, 2], [1, 0], [1, 1], [1, 2]]  # a's stem 1 is silent then
    far = [index for index, (_, _, first) in enumerate(pairs.index.tolist()) if first > 0]
    draws = [pairs.draw(far[seed % len(far)], rng(seed)) for seed in range(2000)]
    assert np.mean([draw.song_start for draw in draws]) == pytest.approx(share, abs=0.02)
    at_start = [draw for draw in draws if draw.song_start]
    assert {int(draw.target[0, 0]) for draw in at_start} == {0, 1, 2}
    for draw in at_start:  # what the player hears first, and what is to be played once it answered
        assert (draw.mix[0, 1], draw.target[0, 1]) == (0, 1)
        assert int(draw.target[0, 0]) not in ((0,), (1,), (2,), (0, 1), (1, 2))[int(draw.mix[0, 0])]
    assert pairs.collate(draws[:50]).song_starts == sum(draw.song_start for draw in draws[:50])
    assert all(draw.mix[0, 1] > 0 for draw in draws if not draw.song_start)


def test_where_no_song_sounds_at_its_start_none_is_cut_there(tmp_path: Path) -> None:
    levels = np.full((3, int(np.ceil(40 * LEVELS_A_FRAME))), -20.0)
    levels[:, : int(10 * LEVELS_A_FRAME)] = -90.0
    pairs = pairs_of(write(tmp_path, [example("a", levels=levels)]), start_share=1.0)
    assert pairs.song_starts.shape == (0, 2)
    assert not any(pairs.draw(index, rng(index)).song_start for index in range(len(pairs)))
