"""Which examples a worker makes together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from prep.config import PrepConfig, Shards
from prep.job import COPIED, Job, bundled
from prep.plan import make_plan
from prep.reuse import Place
from tests.prep.test_plan import BYTES, song

HOP = 4096
FRAMES = 108  # of each stream


@pytest.fixture
def jobs() -> list[Job]:
    """Twelve, in several shards."""
    scanned = [row for number in range(12) for row in song(f"song{number:02d}", 3)]
    return [Job(row) for row in make_plan(scanned, PrepConfig(shards=Shards(size_mb=0.3)), BYTES).rows]


def test_each_alone_where_streams_share_nothing(jobs: list[Job]) -> None:
    assert [bundle.jobs for bundle in bundled(jobs, HOP, 0)] == [(job,) for job in jobs]
    assert [bundle.id for bundle in bundled(jobs, HOP, 0)] == [job.id for job in jobs]
    assert not list(bundled([], HOP, 0))


@pytest.mark.parametrize("most", [1, 5 * FRAMES, 10_000])
def test_as_many_of_one_shard_as_come_to_so_much(jobs: list[Job], most: int) -> None:
    """And in order."""
    bundles = [bundle.jobs for bundle in bundled(jobs, HOP, most)]
    assert [job for bundle in bundles for job in bundle] == jobs
    assert all(len({(job.row.split, job.row.shard) for job in bundle}) == 1 for bundle in bundles)
    assert len({(job.row.split, job.row.shard) for job in jobs}) > 2
    frames = [sum(FRAMES * len(job.members) for job in bundle) for bundle in bundles]
    assert all(sum(FRAMES * len(job.members) for job in bundle[:-1]) < most for bundle in bundles)
    ended = [later[0].row.shard != bundle[0].row.shard for bundle, later in pairwise(bundles)]
    assert all(found >= most or end for found, end in zip(frames, ended, strict=False))


def test_what_is_known_is_not_counted(jobs: list[Job]) -> None:
    place = Place(Path(), 0, 0)
    known = [replace(job, known=dict.fromkeys(range(len(job.members)), place)) for job in jobs]
    one_shard = [job for job in known if job.row.shard == known[0].row.shard and job.row.split == known[0].row.split]
    assert len(one_shard) > 1
    [bundle] = bundled(one_shard, HOP, sum(FRAMES * len(job.members) for job in one_shard) // 3)
    assert list(bundle.jobs) == one_shard and bundle.id == f"{one_shard[0].id} ... {one_shard[-1].id}"


def test_what_is_copied_is_bounded_too(jobs: list[Job]) -> None:
    """All of a bundle waits in memory at once: one new song does not make a bundle of its whole shard."""
    place = Place(Path(), 0, 0)
    one_shard = [replace(job, row=replace(job.row, split="train", shard=0)) for job in jobs]
    known = [replace(job, known=dict.fromkeys(range(len(job.members)), place)) for job in one_shard[:-1]]
    most = 5 * FRAMES
    bundles = [bundle.jobs for bundle in bundled([*known, one_shard[-1]], HOP, most)]
    assert [job for bundle in bundles for job in bundle] == [*known, one_shard[-1]] and len(bundles) > 1
    for bundle in bundles:
        assert sum(FRAMES * len(job.members) for job in bundle[:-1]) < COPIED * most
