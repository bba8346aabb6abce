from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prep.config import Loudness, Mixing, PrepConfig, Shards
from prep.errors import PrepError
from prep.ledger import check, count, make_ledger
from prep.plan import make_plan, write_plan
from prep.scan import ScanRow

BYTES = 2 * 128 / 4096


def row(id: str = "a", stem: str = "S00", **changes: object) -> ScanRow:
    levels = np.full(500, -20.0, np.float16).tobytes()
    base = ScanRow(
        id=id, split="train", corpus="slakh", licence="unknown", stem=stem, path=f"{id}/stems/{stem}.flac", program=33,
        instrument="Bass", size=1, mtime_ns=1, inode=1, digest=f"{id}{stem}", rate=44100, channels=1, samples=441000,
        peak=0.5, loudness_lufs=-20.0, levels=levels,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def song(id: str, stems: int) -> list[ScanRow]:
    return [row(id, f"S{i:02d}") for i in range(stems)]


def test_gains_bring_stems_to_one_loudness_below_the_ceiling() -> None:
    rows = [
        row(stem="S00"),
        row(stem="S01", loudness_lufs=-30.0),
        row(stem="S02", peak=0.9),
        row(stem="S03", loudness_lufs=-110.0),
    ]
    plan = make_plan(rows, PrepConfig(), BYTES).rows[0]
    assert plan.gains_db[:2] == pytest.approx((2.0, 12.0 - 20 * np.log10(0.5 * 10 ** (12 / 20))), abs=1e-6)
    assert plan.gains_db[2] == pytest.approx(-20 * np.log10(0.9), abs=1e-6)
    assert plan.gains_db[3] <= PrepConfig().loudness.max_gain_db


def test_mixes_do_not_hold_a_lone_stem_and_follow_the_law() -> None:
    config = PrepConfig(mixing=Mixing(subsets_per_target=8))
    plan = make_plan(song("a", 6), config, BYTES).rows[0]
    assert all(2 <= len(members) <= 5 and len(set(members)) == len(members) for members in plan.mixes)
    assert len(set(plan.mixes)) == len(plan.mixes) == len(plan.offsets_db)
    for target in range(6):
        assert any(target not in members for members in plan.mixes)
    everything = make_plan(song("a", 6), PrepConfig(mixing=Mixing(size_law="all")), BYTES).rows[0]
    assert {len(members) for members in everything.mixes} == {5} and len(everything.mixes) == 6


def test_a_song_is_planned_the_same_whatever_else_is_there() -> None:
    alone = make_plan(song("b", 5), PrepConfig(), BYTES).rows[0]
    among = make_plan(song("a", 4) + song("b", 5) + song("c", 7), PrepConfig(), BYTES).rows[1]
    assert alone == among


def test_more_mixes_keep_the_levels_of_those_that_were() -> None:
    few = make_plan(song("a", 6), PrepConfig(mixing=Mixing(subsets_per_target=2)), BYTES).rows[0]
    many = make_plan(song("a", 6), PrepConfig(mixing=Mixing(subsets_per_target=16)), BYTES).rows[0]
    offsets = dict(zip(many.mixes, many.offsets_db, strict=True))
    shared = [
        (members, offset) for members, offset in zip(few.mixes, few.offsets_db, strict=True) if members in offsets
    ]
    assert len(shared) >= 3 and all(offsets[members] == offset for members, offset in shared)


def test_the_digest_follows_content_and_settings_not_places() -> None:
    rows = song("a", 3)
    digest = make_plan(rows, PrepConfig(), BYTES).digest
    moved = [replace(r, path=f"elsewhere/{r.stem}.wav", mtime_ns=9, inode=9) for r in rows]
    assert make_plan(moved, PrepConfig(), BYTES).digest == digest
    assert make_plan([replace(rows[0], digest="other"), *rows[1:]], PrepConfig(), BYTES).digest != digest
    assert make_plan(rows, PrepConfig(loudness=Loudness(mix_lufs=-20.0)), BYTES).digest != digest
    assert make_plan(rows, PrepConfig(seed=1), BYTES).digest != digest
    assert make_plan(rows, PrepConfig(max_bad_fraction=0.5), BYTES).digest == digest


def test_shards_fill_to_their_size_and_keep_their_songs() -> None:
    rows = [r for i in range(60) for r in song(f"song{i:02d}", 3)]
    config = PrepConfig(shards=Shards(size_mb=0.5))
    plan = make_plan(rows, config, BYTES)
    assert 5 < plan.shards["train"] < 30
    fewer = make_plan(rows[:-3], config, BYTES)
    assert fewer.shards == plan.shards
    assert [r.shard for r in fewer.rows] == [r.shard for r in plan.rows[:-1]]


def test_verdicts_reach_the_ledger() -> None:
    silent = row("a", "S03", loudness_lufs=-120.0, levels=np.full(500, -120.0, np.float16).tobytes())
    broken = row("b", "S00", reason="truncated", detail="10 samples of 20")
    vocal = [row("c", "S00", instrument="Vocal"), row("c", "S01", instrument="Unknown")]
    short = row("a", "S04", samples=400000)
    rows = [*song("a", 3), silent, short, broken, row("b", "S01"), *vocal]
    ledger = make_ledger(rows, make_plan(rows, PrepConfig(), BYTES))
    assert [(r.status, r.reason) for r in ledger] == [
        *[("used", "")] * 3, ("filtered", "silent"), ("used", ""), ("quarantined", "truncated"),
        ("filtered", "too_few_stems"),
        ("filtered", "no_target"), ("filtered", "no_target"),
    ]  # fmt: skip
    assert ledger[4].detail == "padded from 400000 to 441000 samples"
    assert count(ledger) == {"used": 4, "filtered": 4, "quarantined": 1}
    with pytest.raises(PrepError, match=r"1 of 9 files are broken \(11%\), more than max_bad_fraction \(0.05\)"):
        check(ledger, PrepConfig(max_bad_fraction=0.05), "out/ledger.parquet")
    check(ledger, PrepConfig(max_bad_fraction=0.2), "out/ledger.parquet")


def test_nothing_to_build_says_what_most_files_are() -> None:
    rows = [row("a", "S00"), row("b", "S00")]
    with pytest.raises(PrepError, match=r"nothing to build: 2 of 2 files: too_few_stems .* out/ledger.parquet"):
        check(make_ledger(rows, make_plan(rows, PrepConfig(), BYTES)), PrepConfig(), "out/ledger.parquet")


def test_the_plan_is_readable(tmp_path: Path) -> None:
    plan = make_plan(song("a", 4), PrepConfig(), BYTES)
    write_plan(plan, tmp_path / "plan.parquet", {"generation": "g"})
    table = pd.read_parquet(tmp_path / "plan.parquet")
    assert list(table["id"]) == ["a"] and [tuple(m) for m in table["mixes"][0]] == list(plan.rows[0].mixes)
