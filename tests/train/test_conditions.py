from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from shards import open as open_dataset
from tests.train.made import small, songs
from train import checkpoint
from train.batches import Pairs
from train.conditions import Conditions, Vector
from train.config import Config
from train.errors import DataError
from train.loop import fit

SIZE = 5


def vectors(path: Path, skip: tuple[str, str] = ("", ""), size: int = SIZE, **columns: Any) -> Path:
    """One a stem of `songs`, but for one: song's number, stem's number, then halves."""
    keys = [(f"song{song}", f"S{stem:02d}") for song in range(3) for stem in range(3)]
    rows = [(*key, [float(key[0][-1]), float(key[1][-1]), *[0.5] * (size - 2)]) for key in keys if key != skip]
    pd.DataFrame(rows, columns=["id", "stem", "vector"]).assign(**columns).to_parquet(path)
    return path


def conditioned(path: Path, **sections: Any) -> Config:
    return small(batches={"conditions": str(path), "condition_dim": SIZE}, **sections)


def test_each_target_comes_with_its_own_vector(tmp_path: Path) -> None:
    config = conditioned(
        vectors(tmp_path / "v.parquet", skip=("song1", "S02")),
        generator={"condition_dropout": 0.0},
        discriminator={"condition_dropout": 0.0},
    )
    pairs = Pairs.of(open_dataset(songs(tmp_path / "out")), config)
    batch = pairs.collate([pairs.draw(index, np.random.default_rng(index)) for index in range(len(pairs))])
    assert batch.generator_vector is not None and batch.discriminator_vector is not None
    assert batch.generator_vector.shape == (len(pairs), SIZE)
    for vector, (record, stem, _) in zip(batch.generator_vector, pairs.index.tolist(), strict=True):
        if (record, stem) == (1, 2):
            assert vector.isnan().all()
        else:
            assert vector.tolist() == [record, stem, 0.5, 0.5, 0.5]
    torch.testing.assert_close(batch.generator_vector, batch.discriminator_vector, equal_nan=True)
    assert batch.split(3)[1].generator_vector.shape == (3, SIZE)  # type: ignore[union-attr]


def test_each_network_loses_it_by_its_own_chance(tmp_path: Path) -> None:
    chances = {"generator": {"condition_dropout": 0.2}, "discriminator": {"condition_dropout": 0.7}}
    pairs = Pairs.of(open_dataset(songs(tmp_path / "out")), conditioned(vectors(tmp_path / "v.parquet"), **chances))
    draws = [pairs.draw(0, np.random.default_rng(seed)) for seed in range(600)]
    lost = [[np.isnan(side).all() for side in (d.generator_vector, d.discriminator_vector)] for d in draws]  # type: ignore[arg-type]
    assert np.mean(lost, axis=0) == pytest.approx([0.2, 0.7], abs=0.06)
    assert np.mean([both for both in lost if both[0]], axis=0)[1] == pytest.approx(0.7, abs=0.12)


def test_without_a_file_there_is_none_and_draws_stay_what_they_were(tmp_path: Path) -> None:
    data = open_dataset(songs(tmp_path / "out"))
    plain = Pairs.of(data, small()).draw(0, np.random.default_rng(0))
    beside = Pairs.of(data, conditioned(vectors(tmp_path / "v.parquet"))).draw(0, np.random.default_rng(0))
    assert plain.generator_vector is plain.discriminator_vector is None
    assert np.array_equal(plain.noise, beside.noise) and np.array_equal(plain.mix, beside.mix)


def test_a_run_trains_with_it_and_its_player_takes_it(tmp_path: Path) -> None:
    chances = {"generator": {"condition_dropout": 0.5}, "discriminator": {"condition_dropout": 0.5}}
    config = conditioned(vectors(tmp_path / "v.parquet"), loop={"steps": 6}, **chances)
    assert fit(config, songs(tmp_path / "out"), tmp_path / "run") == 6
    saved = checkpoint.load(tmp_path / "run")
    for network in (saved.generator, saved.discriminator):
        assert network["vector.null"].abs().max() > 0  # it has learnt: from zero
        assert network["vector.project.weight"].shape[1] == SIZE
    player, inputs = saved.player(), (torch.randn(1, 4, 4), torch.randn(1, 4, 3), torch.tensor([1]))
    given, none = player(*inputs, torch.randn(1, SIZE)), player(*inputs)
    assert not torch.equal(given, none)


def test_null_takes_the_place_of_what_is_nan() -> None:
    torch.manual_seed(0)
    vector = Vector(SIZE, 3)
    torch.nn.init.normal_(vector.null)
    rows = torch.randn(2, SIZE)
    rows[1] = torch.nan
    out = vector(rows)
    torch.testing.assert_close(out, torch.stack([rows[0], vector.null]) @ vector.project.weight.T)
    torch.testing.assert_close(vector(None), out[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, r"for stem S00 of song0 not batches\.condition_dim = 5 finite numbers, but .* of shape \(4,\)"),
        ({"vector": [[np.nan] * 5] * 9}, r"finite numbers, but \[nan nan \.\.\. nan nan\] of shape"),
        ({"vector": "five"}, r"v\.parquet cannot be read"),
        ({"vector": None}, r"v\.parquet cannot be read|of shape \(\)"),
    ],
)
def test_a_file_of_other_vectors_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = vectors(tmp_path / "v.parquet", **change)
    with pytest.raises(DataError, match=message) as caught:
        Conditions.read(path, SIZE)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_or_lacks_a_column_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none\.parquet cannot be read .*; give a Parquet file with the columns id, st"
    ):
        Conditions.read(tmp_path / "none.parquet", SIZE)
    (tmp_path / "text.parquet").write_text("id,stem,vector")
    with pytest.raises(DataError, match=r"text\.parquet cannot be read"):
        Conditions.read(tmp_path / "text.parquet", SIZE)
    pd.DataFrame({"id": ["a"], "vector": [[1.0]]}).to_parquet(tmp_path / "few.parquet")
    with pytest.raises(DataError, match=r"few\.parquet cannot be read .*stem"):
        Conditions.read(tmp_path / "few.parquet", 1)
