"""The mix law by chi-square, and what the draws depend on."""

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from prep.draws import rng_for
from prep.stages.mixing import Members, SizeLaw, draw_mixes, draw_subset, draw_subsets, size_probabilities

RngOf = Callable[[str], np.random.Generator]
LAWS: tuple[SizeLaw, ...] = ("uniform", "all", "coin", (0.0, 3.0, 1.0, 2.0))
SIGNIFICANCE = 0.001


def rng_of(seed: int = 7, id: str = "track00001") -> RngOf:
    return partial(rng_for, seed, id)


def names(stems: int) -> list[str]:
    return [f"S{i:02d}" for i in range(stems)]


def mixes_of(stems: int, subsets: int, law: SizeLaw = "uniform", of: RngOf | None = None) -> tuple[Members, ...]:
    return draw_mixes(names(stems), range(stems), range(stems), subsets, law, of or rng_of())


@lru_cache
def drawn(stems: int, law: SizeLaw) -> list[tuple[int, Members]]:
    """10,000 pairs of target and subset or a few more, each target equally often."""
    return list(draw_subsets(names(stems), range(stems), range(stems), -(-10_000 // stems), law, rng_of()))


def p_of_sizes(pairs: list[tuple[int, Members]], others: int, law: SizeLaw) -> float:
    """Of chi-square; sizes expected less than 5 times are counted with the likeliest, impossible ones must not come."""
    counts = np.bincount([len(members) for _, members in pairs], minlength=others + 1)[1:]
    expected = len(pairs) * size_probabilities(others, law)
    assert not counts[expected == 0].any()
    kept = expected >= 5
    kept[expected.argmax()] = False
    if not kept.any():  # there is one size only
        return 1.0
    observed = [counts[~kept].sum(), *counts[kept]]
    return float(stats.chisquare(observed, [expected[~kept].sum(), *expected[kept]]).pvalue)


def p_of_members(pairs: list[tuple[int, Members]], stems: int) -> float:
    """How often each stem was in, given the sizes: no stem is preferred.

    For draws of s from k without replacement the counts have variance sum p (1 - p) with p = s / k, and correlation
    -1 / (k - 1); so their squared distance, scaled as below, is chi-square with k - 1 degrees of freedom a target.
    """
    others, total, degrees = stems - 1, 0.0, 0
    for target in range(stems):
        subsets = [members for t, members in pairs if t == target]
        share = np.array([len(members) for members in subsets]) / others
        counts = np.bincount([i for members in subsets for i in members], minlength=stems)
        assert counts[target] == 0
        variance = (share * (1 - share)).sum() * others / (others - 1)
        if variance > 0:
            total += ((np.delete(counts, target) - share.sum()) ** 2).sum() / variance
            degrees += others - 1
    return float(stats.chi2.sf(total, degrees)) if degrees else 1.0


def p_of_subsets(pairs: list[tuple[int, Members]], stems: int) -> float:
    """Given target and size, all subsets alike: every one of them is a cell."""
    cells, total, degrees = Counter(pairs), 0.0, 0
    for target in range(stems):
        others = [i for i in range(stems) if i != target]
        for size in range(1, stems):
            counts = np.array([cells.pop((target, members), 0) for members in combinations(others, size)])
            if counts.sum() and len(counts) > 1:
                total += stats.chisquare(counts).statistic
                degrees += len(counts) - 1
    assert not cells
    return float(stats.chi2.sf(total, degrees)) if degrees else 1.0


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("stems", [2, 3, 5, 10, 30])
def test_ten_thousand_pairs_follow_the_law(stems: int, law: SizeLaw) -> None:
    pairs = drawn(stems, law)
    assert len(pairs) >= 10_000 and {target for target, _ in pairs} == set(range(stems))
    assert p_of_sizes(pairs, stems - 1, law) > SIGNIFICANCE
    if stems > 2:
        assert p_of_members(pairs, stems) > SIGNIFICANCE
    if stems <= 5:
        assert p_of_subsets(pairs, stems) > SIGNIFICANCE


@pytest.mark.parametrize("stems", [3, 5, 10, 30])
def test_another_law_would_be_found_out(stems: int) -> None:
    pairs = drawn(stems, "uniform")
    assert p_of_sizes(pairs, stems - 1, "coin") < SIGNIFICANCE
    slight = [1.0] * (stems - 2) + [1.0 + 0.1 * (stems - 1)]  # the largest size more often by a tenth of all
    assert p_of_sizes(pairs, stems - 1, slight) < SIGNIFICANCE


@pytest.mark.parametrize("stems", [3, 5, 10, 30])
def test_a_preferred_stem_would_be_found_out(stems: int) -> None:
    generator, pairs = rng_of()("biased"), []
    for target, members in drawn(stems, "uniform"):
        swap = 0 not in (target, *members) and generator.random() < 0.2  # stem 0 takes another's place
        pairs.append((target, tuple(sorted((0, *members[1:]))) if swap else members))
    assert p_of_members(pairs, stems) < SIGNIFICANCE
    assert stems > 5 or p_of_subsets(pairs, stems) < SIGNIFICANCE


def test_probabilities_of_sizes_are_those_written_out() -> None:
    assert size_probabilities(4, "uniform") == pytest.approx([0.25] * 4)
    assert size_probabilities(3, "all") == pytest.approx([0, 0, 1])
    assert size_probabilities(3, "coin") == pytest.approx([3 / 7, 3 / 7, 1 / 7])
    assert size_probabilities(3, [1, 3]) == pytest.approx([0.25, 0.75, 0])
    assert size_probabilities(2, [1, 1, 8]) == pytest.approx([0.5, 0.5])
    assert size_probabilities(2, [0, 0, 8]) == pytest.approx([0, 1])
    for others in (1, 2, 29, 1200):
        for law in LAWS:
            probabilities = size_probabilities(others, law)
            assert probabilities.shape == (others,) and probabilities.min() >= 0
            assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-12)


def test_no_subset_holds_its_target_or_what_is_no_context() -> None:
    pairs = list(draw_subsets(names(9), [3, 8], [1, 3, 4], 50, "uniform", rng_of()))
    assert Counter(target for target, _ in pairs) == {3: 50, 8: 50}
    assert {members for target, members in pairs if target == 3} == {(1,), (4,), (1, 4)}
    assert {len(members) for target, members in pairs if target == 8} == {1, 2, 3}
    for target, members in pairs:
        assert target not in members and set(members) <= {1, 3, 4} and members == tuple(sorted(set(members)))


def test_a_target_without_other_contexts_has_no_subsets() -> None:
    assert list(draw_subsets(names(3), [0, 1], [0], 2, "all", rng_of())) == [(1, (0,))] * 2
    assert list(draw_subsets(names(3), [0, 1], [], 2, "all", rng_of())) == []


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("stems", [0, 1, 2])
def test_too_few_stems_give_no_mix(stems: int, law: SizeLaw) -> None:
    assert mixes_of(stems, 8, law) == ()


@pytest.mark.parametrize("stems", [3, 8, 30])
def test_mixes_are_distinct_sorted_and_more_than_one_stem(stems: int) -> None:
    mixes = mixes_of(stems, 4)
    assert len(set(mixes)) == len(mixes) <= 4 * stems
    assert list(mixes) == sorted(mixes, key=lambda members: (len(members), members))
    assert all(1 < len(members) < stems for members in mixes)


def test_law_of_all_the_rest() -> None:
    assert draw_mixes(names(6), [0, 2, 5], [0, 2, 5], 3, "all", rng_of()) == ((0, 2), (0, 5), (2, 5))
    assert draw_mixes(names(4), [3], range(4), 3, "all", rng_of()) == ((0, 1, 2),)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_more_draws_hold_the_fewer(law: SizeLaw) -> None:
    few, many = (list(draw_subsets(names(9), range(9), range(9), r, law, rng_of())) for r in (3, 7))
    assert [many[7 * target + number] for target in range(9) for number in range(3)] == few
    assert set(mixes_of(9, 3, law)) <= set(mixes_of(9, 7, law))


def test_the_order_of_stems_changes_nothing() -> None:
    def by_name(stems: list[str], targets: str, contexts: str) -> set[frozenset[str]]:
        places = [[stems.index(name) for name in wanted] for wanted in (targets, contexts)]
        return {frozenset(stems[i] for i in m) for m in draw_mixes(stems, *places, 3, "uniform", rng_of())}

    one = by_name(list("abcdefgh"), "bdh", "abcdef")
    assert one == by_name(list("gechbadf"), "hdb", "fbdcae") and len(one) > 3


def test_drawing_depends_on_its_key_alone() -> None:
    first = mixes_of(9, 4)
    assert first == mixes_of(9, 4)
    assert all(mixes_of(9, 4, of=other) != first for other in (rng_of(8), rng_of(7, "track00002")))
    generator = rng_of()("mixing:S00:0")
    assert draw_subset(range(1, 9), "uniform", generator) != draw_subset(range(1, 9), "uniform", generator)


def test_draws_are_the_same_everywhere() -> None:
    # written down once: a change here changes every plan
    assert rng_for(0, "track00001", "mixes").bit_generator.random_raw(2).tolist() == [
        12482897825998586142,
        15540805399333989509,
    ]
    assert mixes_of(5, 2, of=rng_of(0)) == ((1, 3), (1, 4), (3, 4), (0, 1, 2, 4), (0, 1, 3, 4))
    assert rng_for(1, "ab", "c").random() != rng_for(1, "a", "bc").random()


def test_errors_name_the_setting() -> None:
    with pytest.raises(ValueError, match="subsets_per_target is 0; it must be at least 1"):
        mixes_of(3, 0)
    with pytest.raises(ValueError, match="'dice' is not known; it must be uniform, all, coin or a list of weights"):
        mixes_of(3, 1, "dice")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drawn from 0 stems"):
        size_probabilities(0, "uniform")
