"""That what is measured is what it should be, without the peers: their packages are not there."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import shards
from tests.bench.loading import contenders, made, opening
from tests.bench.loading.__main__ import contenders as listed

SIZE = made.Size(examples=16, stems=4, mixes=2, frames=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    made.write_ours(folder, SIZE)
    return folder


def test_ours_and_the_ceiling_give_pairs_cut_alike(folder: Path) -> None:
    for batches in (contenders.ours(folder, SIZE), contenders.ceiling(folder, SIZE, contenders.Pool())):
        for batch in islice(batches, 2):
            made.check(SIZE, batch)


def test_the_check_finds_what_is_wrong(folder: Path) -> None:
    mix, target = next(contenders.ceiling(folder, SIZE, contenders.new_batch))
    made.check(SIZE, (mix, target))
    for wrong in ((target, mix), (mix, np.roll(target, 1, axis=0)), (mix[:, ::-1], target), (mix[1:], target[1:])):
        with pytest.raises(AssertionError):
            made.check(SIZE, wrong)


def test_an_array_is_used_again_only_when_nobody_holds_it_or_a_part_of_it() -> None:
    give = contenders.Pool()
    held, part = give(), give()[0][3:5]
    first = {id(array) for array in (*held, part.base)}
    assert not first & {id(array) for array in give()}
    del held, part
    assert first & {id(array) for array in give()}


def test_a_simulated_dataset_opens(tmp_path: Path) -> None:
    opening.simulate(tmp_path / "many", 5)
    dataset = shards.open(tmp_path / "many")
    assert len(dataset) == 5
    np.testing.assert_array_equal(dataset[0]["stems"][1, 2:4], made.example(made.Size(1, 2, 2, 256), 0).stems[1, 2:4])


def test_each_contender_is_listed_once() -> None:
    keys = [(each.name, each.workers, each.crops) for each in listed()]
    assert len(set(keys)) == len(keys) == 18
