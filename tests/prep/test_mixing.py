"""The mix law by chi-square, and mixes as plain sums of known gain."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from prep.draws import rng_for
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs
from prep.stages.mixing import draw_mixes, draw_subset, draw_subsets, mix_audio, mix_gain_db


def rng(stage: str = "mixes") -> np.random.Generator:
    return rng_for(7, "track00001", stage)


@pytest.mark.parametrize("stems", [2, 5, 12, 30])
def test_sizes_are_uniform(stems: int) -> None:
    drawn = draw_subsets(range(stems), range(stems), -(-10_000 // stems), "uniform", rng())
    sizes = Counter(len(members) for _, members in drawn)
    assert sum(sizes.values()) >= 10_000 and set(sizes) == set(range(1, stems))
    if stems > 2:
        assert stats.chisquare(list(sizes.values())).pvalue > 0.001


def test_subsets_of_one_size_are_uniform() -> None:
    generator = rng()
    drawn = Counter(draw_subset(range(5), "uniform", generator) for _ in range(20_000))
    for size in range(1, 6):
        counts = [drawn[members] for members in combinations(range(5), size)]
        assert min(counts) > 0
        if len(counts) > 1:
            assert stats.chisquare(counts).pvalue > 0.001


def test_no_subset_holds_its_target_and_every_target_gets_its_share() -> None:
    pairs = list(draw_subsets([1, 3, 4, 8], [3, 8], 50, "uniform", rng()))
    assert Counter(target for target, _ in pairs) == {3: 50, 8: 50}
    for target, members in pairs:
        assert target not in members and set(members) <= {1, 3, 4, 8} and members == tuple(sorted(set(members)))


def test_target_need_not_be_active() -> None:
    assert {members for _, members in draw_subsets([0, 1], [2], 200, "uniform", rng())} == {(0,), (1,), (0, 1)}


@pytest.mark.parametrize("stems", [0, 1, 2])
def test_too_few_stems_give_no_mix(stems: int) -> None:
    assert draw_mixes(range(stems), range(stems), 8, "uniform", rng()) == ()
    assert draw_mixes(range(stems), range(stems), 8, "all", rng()) == ()


@pytest.mark.parametrize("stems", [3, 8, 30])
def test_mixes_are_distinct_sorted_and_more_than_one_stem(stems: int) -> None:
    mixes = draw_mixes(range(stems), range(stems), 4, "uniform", rng())
    assert len(set(mixes)) == len(mixes) <= 4 * stems
    assert list(mixes) == sorted(mixes, key=lambda members: (len(members), members))
    assert all(1 < len(members) < stems for members in mixes)


def test_law_of_all_the_rest() -> None:
    assert draw_mixes([0, 2, 5], [0, 2, 5], 3, "all", rng()) == ((0, 2), (0, 5), (2, 5))
    assert draw_mixes(range(4), [3], 3, "all", rng()) == ((0, 1, 2),)


def test_drawing_depends_on_its_key_alone() -> None:
    first = draw_mixes(range(9), range(9), 4, "uniform", rng())
    assert first == draw_mixes(list(range(9))[::-1], [*range(9), 3], 4, "uniform", rng())
    others = [rng_for(8, "track00001", "mixes"), rng_for(7, "track00002", "mixes"), rng("gains")]
    assert all(draw_mixes(range(9), range(9), 4, "uniform", other) != first for other in others)


def test_draws_are_the_same_everywhere() -> None:
    # written down once: a change here changes every plan
    assert rng_for(0, "track00001", "mixes").bit_generator.random_raw(2).tolist() == [
        12482897825998586142,
        15540805399333989509,
    ]
    mixes = draw_mixes(range(5), range(5), 1, "uniform", rng_for(0, "track00001", "mixes"))
    assert mixes == ((0, 3), (1, 3), (2, 4), (0, 2, 3, 4))
    assert rng_for(1, "ab", "c").random() != rng_for(1, "a", "bc").random()


def test_errors_name_the_setting() -> None:
    with pytest.raises(ValueError, match="subsets_per_target is 0; it must be at least 1"):
        draw_mixes(range(3), range(3), 0, "uniform", rng())
    with pytest.raises(ValueError, match="'coin' is not known; it must be uniform or all"):
        draw_mixes(range(3), range(3), 1, "coin", rng())  # type: ignore[arg-type]


def stems() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((4, 2, 44100))).astype(np.float32)


def test_mix_is_the_plain_sum_of_gained_stems() -> None:
    audio = stems()
    before = audio.copy()
    mix = mix_audio(audio, [0.0, -6.0, 3.0, 20.0], (0, 2))
    np.testing.assert_allclose(mix, audio[0] + 10 ** (3 / 20) * audio[2], atol=1e-6)
    assert mix.dtype == np.float32
    np.testing.assert_array_equal(mix, mix_audio(audio, [0.0, -6.0, 3.0, 20.0], (2, 0)))
    np.testing.assert_array_equal(audio, before)
    with pytest.raises(ValueError, match="at least one member"):
        mix_audio(audio, [0.0] * 4, ())


@pytest.mark.parametrize("offset_db", [-6.0, 0.0, 5.5])
def test_mix_comes_to_its_loudness(offset_db: float) -> None:
    mix = mix_audio(stems(), [0.0] * 4, (0, 1, 2, 3))
    gain = mix_gain_db(integrated_lufs(mix, 44100), float(np.abs(mix).max()), -18.0, offset_db)
    assert integrated_lufs(mix * 10 ** (gain / 20), 44100) == pytest.approx(-18.0 + offset_db, abs=1e-4)


@pytest.mark.parametrize("ceiling_db", [0.0, -1.0])
def test_over_full_scale_is_attenuated_and_not_clipped(ceiling_db: float) -> None:
    mix = stems()[0]
    mix[0, 100] = 3.0
    gain = mix_gain_db(integrated_lufs(mix, 44100), 3.0, -18.0, 6.0, ceiling_db)
    assert 3.0 * 10 ** (gain / 20) == pytest.approx(10 ** (ceiling_db / 20), abs=1e-9)


def test_silent_mix_keeps_its_gain() -> None:
    assert mix_gain_db(SILENCE_LUFS, 0.0, -18.0, 3.0) == 0.0
