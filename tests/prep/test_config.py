from pathlib import Path

import pytest

from prep.config import PrepConfig, read_config
from prep.errors import PrepError


def test_defaults_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("mixing:\n  subsets_per_target: 3\n")
    config = read_config(path, ("mixing.size_law=all", "seed=7", "audio.resample=true"))
    assert (config.mixing.subsets_per_target, config.mixing.size_law, config.seed) == (3, "all", 7)
    assert config.audio.resample and config.loudness == PrepConfig().loudness
    assert read_config(None) == PrepConfig()


@pytest.mark.parametrize("name", ["slakh"])
def test_the_recipes_that_ship_are_valid(name: str) -> None:
    read_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mixing: {subset_per_target: 3}",
            r"mixing.subset_per_target is no setting. Did you mean subsets_per_target\?",
        ),
        ("mixin: {}", r"mixin is no setting. Did you mean mixing\?"),
        ("colour: red", r"colour is no setting. Known: activity, audio"),
        ("loudness: {mix_lufs: 3.0}", r"loudness.mix_lufs is 3.0: .*less than or equal to 0"),
        ("loudness: {mix_lufs: -2e1x}", r"loudness.mix_lufs is '-2e1x'"),
        ("loudness: {ceiling_db: -1e0}", r"loudness.ceiling_db is '-1e0': .*write 2.0e-4"),
        ("instruments: {exclude_targets: [Vocals]}", r"instruments.exclude_targets.*Vocals.*Vocal"),
        ("mixing: [1", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("1: 2", "must be a mapping"),
        ("audio: {max_length_s: .inf}", "audio.max_length_s is inf: .*finite"),
    ],
)
def test_bad_settings_are_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(PrepError, match=message):
        read_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [("seed", "must be of the form"), ("seed.x=1", "seed"), ("mixing.size_law=[", "not a YAML value")],
)
def test_bad_overrides_are_told(override: str, message: str) -> None:
    with pytest.raises(PrepError, match=message):
        read_config(None, (override,))


def test_a_missing_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(PrepError, match=r"nothing.yaml is not a file"):
        read_config(tmp_path / "nothing.yaml")


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("mixing: {subsets_per_target: 3}")
    with pytest.raises(PrepError, match=r"^--set: mixing.size_law"):
        read_config(path, ("mixing.size_law=most",))
    with pytest.raises(PrepError, match=r"^--set: mixing.subsets is no setting"):
        read_config(path, ("mixing.subsets=4",))
    path.write_text("mixing: {subsets_per_target: many}")
    with pytest.raises(PrepError, match=r"recipe.yaml: mixing.subsets_per_target"):
        read_config(path, ("seed=7",))


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 1\nmixing:\n  size_law: all\n  size_law: coin\n")
    with pytest.raises(PrepError, match=r"size_law is there twice, again in line 3 or below"):
        read_config(path)


@pytest.mark.parametrize(
    ("law", "fine"), [("coin", True), ([0, 1.0, 2.0], True), ([], False), ([0.0], False), ([1.0, -1.0], False)]
)
def test_size_laws(law: object, fine: bool) -> None:
    if fine:
        assert read_config(None, (f"mixing.size_law={law}",)).mixing.size_law == law
    else:
        with pytest.raises(PrepError, match=r"mixing.size_law"):
            read_config(None, (f"mixing.size_law={law}",))


def test_settings_of_the_readme_can_be_set_from_the_shell() -> None:
    assert read_config(None, ("loudness.true_peak=true",)).loudness.true_peak is True
    with pytest.raises(PrepError, match=r"activity.window_s is 1e\+308"):
        read_config(None, ("activity.window_s=1.0e+308",))
    with pytest.raises(PrepError, match=r"mixing.size_law is"):
        read_config(None, ("mixing.size_law=[1.0e+308, 1.0e+308]",))
