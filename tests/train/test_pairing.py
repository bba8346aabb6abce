"""What may be drawn: the law of the mix's size by chi-square, and crops in which mix and target sound together."""

from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prep.stages.mixing import SizeLaw, size_probabilities
from shards import Example
from shards import open as open_dataset
from tests.train.made import LEVELS_A_FRAME, allowed, example, small, write
from train.batches import Pairs
from train.errors import DataError
from train.pairing import draw_row, valid_starts

LAWS: list[SizeLaw] = ["uniform", "all", "coin", [3.0, 0.0, 1.0, 2.0]]
CROP = 8


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs_of(out: Path, examples: list[Example], pairs: dict[str, Any] | None = None, **batches: Any) -> Pairs:
    data = write(out, examples, pairs=pairs or allowed())
    return Pairs.of(open_dataset(data), small(batches={"crop_frames": CROP, **batches}))


def rows_of(law: SizeLaw, most: int = 7) -> list[list[float]]:
    return [size_probabilities(others, law).tolist() for others in range(1, most + 1)]


def subsets(stems: int) -> tuple[tuple[int, ...], ...]:
    """Every mix that can be stored."""
    return tuple(members for size in range(2, stems + 1) for members in combinations(range(stems), size))


def ten_thousand(pairs: Pairs) -> Counter[tuple[int, int, int]]:
    """Draws of every index in turn: how often which stream was heard in which record by which target."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for number in range(10_000):
        index = number % len(pairs)
        record, stem, _ = pairs.index[index].tolist()
        draw = pairs.draw(index, rng(number))
        assert (draw.target[:, 0] == stem).all()
        counts[record, stem, int(draw.mix[0, 0])] += 1
    return counts


def p_value(pairs: Pairs, expected: dict[tuple[int, int, int], float], counts: Counter[tuple[int, int, int]]) -> float:
    """Of chi-square, for probabilities of each stream given record and target; what cannot be must not come."""
    assert {key for key, p in expected.items() if p} >= set(counts) and sum(expected.values()) == pytest.approx(14)
    total, degrees = 0.0, 0
    for record, stem in {key[:2] for key in expected}:
        cells = [(counts[key], p) for key, p in expected.items() if key[:2] == (record, stem) and p]
        draws = sum(count for count, _ in cells)
        total += sum((count - draws * p) ** 2 / (draws * p) for count, p in cells)
        degrees += len(cells) - 1
    return float(stats.chi2.sf(total, degrees)) if degrees else 1.0


def by_the_law(examples: list[Example], law: SizeLaw) -> dict[tuple[int, int, int], float]:
    """Where every subset is stored: the law's sizes, each subset of one size alike."""
    expected = {}
    for number, item in enumerate(examples):
        others = item.meta["n_stems"] - 1
        sizes = size_probabilities(others, law)
        for stem in range(others + 1):
            rows = {row: len(m) for row, m in enumerate(item.meta["members"]) if stem not in m}
            of_size = Counter(rows.values())
            expected |= {(number, stem, row): sizes[size - 1] / of_size[size] for row, size in rows.items()}
    return expected


@pytest.fixture(scope="module")
def complete() -> list[Example]:
    """Songs of 2 to 5 stems, 14 in all, with every mix there is; short, so that each stem is in the index once."""
    return [example(f"s{stems}", stems=stems, members=subsets(stems), frames=CROP + 2) for stems in range(2, 6)]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_ten_thousand_draws_follow_the_law(tmp_path: Path, complete: list[Example], law: SizeLaw) -> None:
    pairs = pairs_of(tmp_path, complete, allowed(rows_of(law)))
    counts = ten_thousand(pairs)
    assert p_value(pairs, by_the_law(complete, law), counts) > 0.001
    if law == "uniform":  # and the test can tell: these are not another law's
        assert p_value(pairs, by_the_law(complete, "coin"), counts) < 0.001


def by_the_nearest(
    examples: list[Example], law: SizeLaw, signs: tuple[int, int] = (1, -1)
) -> dict[tuple[int, int, int], float]:
    """Where some sizes are missing: the whole probability of a size goes to the first that is stored, looking at it,
    one above, one below, two above, two below, and so on."""
    expected: dict[tuple[int, int, int], float] = {}
    for number, item in enumerate(examples):
        others = item.meta["n_stems"] - 1
        for stem in range(others + 1):
            rows = {row: len(m) for row, m in enumerate(item.meta["members"]) if stem not in m}
            expected |= {(number, stem, row): 0.0 for row in rows}
            for wanted, probability in enumerate(size_probabilities(others, law), start=1):
                look = [wanted, *(wanted + sign * far for far in range(1, others + 1) for sign in signs)]
                size = next(size for size in look if size in rows.values())
                found = [row for row, its in rows.items() if its == size]
                for row in found:
                    expected[number, stem, row] += probability / len(found)
    return expected


@pytest.mark.parametrize("law", ["uniform", "coin"])
def test_where_a_size_is_not_stored_the_nearest_is_drawn(tmp_path: Path, law: SizeLaw) -> None:
    few = [
        example("a", stems=6, members=((0, 1, 2, 3), (1, 2, 3, 4, 5), (4, 5)), frames=CROP + 2),
        example("b", stems=8, members=((0, 1, 2, 3, 4, 5, 6), (0, 1, 2), (1, 2, 3, 4, 5)), frames=CROP + 2),
    ]
    pairs = pairs_of(tmp_path, few, allowed(rows_of(law)))
    counts = ten_thousand(pairs)
    assert p_value(pairs, by_the_nearest(few, law), counts) > 0.001
    assert p_value(pairs, by_the_nearest(few, law, (-1, 1)), counts) < 0.001  # of two as near, not the smaller


def test_of_two_sizes_as_near_the_larger_is_drawn() -> None:
    members = [[i] for i in range(5)] + [[0, 1, 2]]
    drawn = Counter(draw_row(members, [0, 1, 2, 3, 5], [0.0, 1.0, 0.0, 0.0], rng(seed)) for seed in range(50))
    assert drawn == {5: 50}


def test_a_lone_stem_that_is_no_context_is_not_heard(tmp_path: Path) -> None:
    # the classes are Piano, Bass, Percussive, Piano, Bass; mixes are drawn of contexts only
    members = ((0, 2), (0, 2, 3), (2, 3))
    pairs = allowed(exclude_contexts=["Bass"], exclude_targets=["Percussive"])
    drawn = pairs_of(tmp_path, [example("a", stems=5, members=members, frames=CROP + 2)], pairs)
    assert [stem for _, stem, _ in drawn.index.tolist()] == [0, 1, 3, 4] and drawn.dropped == 0
    heard: dict[int, set[int]] = {}
    for number in range(400):
        stem = int(drawn.index[number % 4, 1])
        heard.setdefault(stem, set()).add(int(drawn.draw(number % 4, rng(number)).mix[0, 0]))
    assert heard == {0: {2, 3, 7}, 1: {0, 2, 3, 5, 6, 7}, 3: {0, 2, 5}, 4: {0, 2, 3, 5, 6, 7}}


def test_the_only_context_has_nothing_to_hear(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [example("a", stems=2)], allowed(exclude_contexts=["Bass"]))
    assert set(pairs.index[:, 1].tolist()) == {1}
    assert (pairs.dropped, pairs.targets) == (1, 2)


def test_targets_may_be_chosen_and_left_out_and_are_heard_all_the_same(tmp_path: Path) -> None:
    made = [example("a", stems=5)]  # Piano, Bass, Percussive, Piano, Bass
    law = allowed(exclude_targets=["Percussive"])
    for number, (given, stems) in enumerate(
        [({"targets": ["Bass"]}, {1, 4}), ({"exclude_targets": ["Bass"]}, {0, 3}), ({}, {0, 1, 3, 4})]
    ):
        pairs = pairs_of(tmp_path / str(number), made, law, **given)
        assert set(pairs.index[:, 1].tolist()) == stems
        for row in range(len(pairs)):
            stem = int(pairs.index[row, 1])
            assert set(pairs.law.heard(pairs.dataset[0], stem)[0]).issuperset({0, 1, 2, 3, 4} - {stem})


def test_a_target_that_cannot_be_is_named(tmp_path: Path) -> None:
    for given, message in (
        ({"targets": ["Bas"]}, "batches.targets has 'Bas', and the dataset's classes are Piano, Bass, Percussive"),
        ({"exclude_targets": ["bass"]}, "batches.exclude_targets has 'bass', and"),
        ({"targets": ["Percussive"]}, "batches.targets has 'Percussive', which the build excludes"),
        ({"targets": ["Bass"], "exclude_targets": ["Bass"]}, r"target \(batches.targets: Bass; batches.exclude_targ"),
    ):
        with pytest.raises(DataError, match=message):
            pairs_of(tmp_path / str(given), [example("a", stems=3)], allowed(exclude_targets=["Percussive"]), **given)


def test_a_dataset_that_does_not_say_its_law_is_refused(tmp_path: Path) -> None:
    message = r"does not say .* an earlier Greenroom built it; run the same `prep build` again"
    for number, wrong in enumerate([None, {}, {"exclude_targets": []}, {**allowed(), "size_probabilities": 3}]):
        with pytest.raises(DataError, match=message):
            Pairs.of(open_dataset(write(tmp_path / str(number), [example("a")], pairs=wrong)), small())


def test_a_song_with_more_stems_than_the_law_has_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a has 4 stems to hear beside a target, .* goes up to 3; run the same"):
        pairs_of(tmp_path, [example("a", stems=5)], allowed(rows_of("uniform", 3)))


def levels_of(rows: list[list[int]], frames: int) -> np.ndarray:
    """Levels of streams that sound in the listed latent frames only."""
    levels = np.full((len(rows), int(np.ceil(frames * LEVELS_A_FRAME))), -120.0)
    edges = np.rint(np.arange(frames + 1) * LEVELS_A_FRAME).astype(int)
    for row, sounding in enumerate(rows):
        for frame in sounding:
            levels[row, edges[frame] : edges[frame + 1]] = -20
    return levels


def shares(levels: np.ndarray, start: int, ahead: int) -> list[Fraction]:
    """By counting: in how much of the crop the heard stream sounds, the shifted target, and both at once."""
    first, last = round(start * LEVELS_A_FRAME), round((start + CROP) * LEVELS_A_FRAME)
    shift, (heard, target) = round(ahead * LEVELS_A_FRAME), levels.tolist()
    counts = [0, 0, 0]
    for at in range(first, last):
        one, two = heard[at] > -60, at + shift < len(target) and target[at + shift] > -60
        counts = [counts[0] + one, counts[1] + two, counts[2] + (one and two)]
    return [Fraction(count, last - first) for count in counts]


def test_taking_turns_is_not_sounding_together(tmp_path: Path) -> None:
    turns = [[f for f in range(40) if f // 4 % 2 == stem] for stem in (0, 1)]
    levels = levels_of(turns, 40)
    for start in range(33):  # each sounds in half of every crop, give or take a level; they never do together
        one, two, both = shares(levels, start, 0)
        assert min(one, two) > 0.45 and both == 0
    song = [example("a", stems=2, levels=levels)]
    with pytest.raises(DataError, match=r"with two stems, which sound together in 40% of a crop"):
        pairs_of(tmp_path / "beside", song, anticipation_frames=0, active_share=0.4)
    # half a turn later the answer lies on what was heard
    later = pairs_of(tmp_path / "later", song, anticipation_frames=4, active_share=0.4)
    assert set(later.index[:, 1].tolist()) == {0, 1} and later.dropped == 0


def patchy(seed: int, streams: int, frames: int) -> np.ndarray:
    """Levels of streams that start and stop by chance, most of them silent for long."""
    generator, rows = rng(seed), []
    for _ in range(streams):
        edges = np.sort(generator.integers(0, frames, 8))
        rows.append([frame for a, b in pairwise(edges.tolist()) if generator.random() < 0.5 for frame in range(a, b)])
    return levels_of(rows, frames)


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_every_block_with_a_valid_start_is_indexed_and_no_other_crop_is_drawn(tmp_path: Path, ahead: int) -> None:
    members, frames = ((0, 1), (1, 2), (0, 2), (0, 1, 2)), 96
    songs = [example(f"s{i}", stems=4, members=members, frames=frames, levels=patchy(i, 8, frames)) for i in range(3)]
    pairs = pairs_of(tmp_path, songs, anticipation_frames=ahead, redraws=1)
    valid = {
        (number, stem, row, start)
        for number, song in enumerate(songs)
        for stem in range(4)
        for row, heard in enumerate(song.meta["members"])
        for start in range(frames - CROP - ahead + 1)
        if stem not in heard and shares(song.levels[[row, stem]], start, ahead)[2] >= 0.5
    }
    blocks = sorted({(number, stem, start // CROP * CROP) for number, stem, _, start in valid})
    assert [tuple(row) for row in pairs.index.tolist()] == blocks and 10 < len(blocks) < 3 * 4 * (frames // CROP)
    assert pairs.dropped == 3 * 4 - len({block[:2] for block in blocks}) and pairs.targets == 3 * 4
    drawn, redraws = set(), Counter[int]()
    for number in range(1500):
        record, stem, first = pairs.index[number % len(pairs)].tolist()
        draw = pairs.draw(number % len(pairs), rng(number))
        start = int(draw.mix[0, 1])
        assert first <= start < first + CROP
        drawn.add((record, stem, int(draw.mix[0, 0]), start))
        redraws[draw.redraws] += 1
    assert drawn <= valid and len(drawn) > 0.5 * len(valid)
    assert redraws.keys() == {0, 1, 2}  # 2: neither draw had a start, and one that has was taken


def test_what_the_law_never_draws_is_taken_where_nothing_else_sounds(tmp_path: Path) -> None:
    rows: list[list[int]] = [list(range(40)), [], list(range(40)), [], [], []]  # stems 0 and 2 sound, no mix does
    song = example("a", members=((0, 1), (1, 2), (0, 2)), levels=levels_of(rows, 40))
    pairs = pairs_of(tmp_path, [song], allowed(rows_of("all")), redraws=3)
    assert (pairs.dropped, pairs.targets) == (1, 3)
    draws = [pairs.draw(index, rng(index)) for index in range(len(pairs))]
    heard = {(int(draw.target[0, 0]), int(draw.mix[0, 0]), draw.redraws) for draw in draws}
    assert heard == {(0, 2, 4), (2, 0, 4)}
    assert pairs.collate(draws).redraws == 4 * len(draws)


def test_what_lies_past_the_end_of_the_levels_is_silent() -> None:
    c, sounding = small(batches={"crop_frames": CROP, "anticipation_frames": 2}).batches, np.full(60, -20.0)
    starts = np.arange(20)
    found = valid_starts(sounding, sounding, starts, c, LEVELS_A_FRAME)
    # of the crop's 37 levels, 19 must lie before the target's end: (s + 2) * 4.64 + 19 <= 60
    assert found.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert valid_starts(sounding, sounding[:0], starts, c, LEVELS_A_FRAME).tolist() == []
    assert valid_starts(sounding, sounding, starts[:0], c, LEVELS_A_FRAME).tolist() == []
