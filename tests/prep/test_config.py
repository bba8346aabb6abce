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
