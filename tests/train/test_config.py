from pathlib import Path

import pytest
import torch

from train.config import Config, difference, load
from train.errors import ConfigError
from train.game import networks

CONFIGS = Path(__file__).parents[2] / "configs"
OURS = [CONFIGS / "demo.yaml", *sorted(CONFIGS.glob("liveband*.yaml"))]


def written(tmp: Path, text: str) -> Path:
    path = tmp / "c.yaml"
    path.write_text(text)
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Config()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_each_recipe_tags_its_values_and_has_the_networks_it_says(path: Path) -> None:
    config = load(path)
    assert config.loop.steps >= 100
    values = [line for line in path.read_text().splitlines() if ": " in line and not line.startswith(("#", "base:"))]
    values = [line for line in values if not line.split("#")[0].strip().endswith(":")]
    assert values and all("# [" in line for line in values)
    with torch.device("meta"):
        millions = [sum(p.numel() for p in network.parameters()) / 1e6 for network in networks(config, 128, 18)]
        mix, noise = torch.empty(2, config.batches.crop_frames, 128), config.generator.noise_dim
        shared = torch.empty(2, config.batches.crop_frames, noise), torch.zeros(2, dtype=torch.int64)
        generator, discriminator = networks(config, 128, 18)
        assert discriminator(generator(mix, *shared), mix, shared[1]).shape == (2,)
    print(f"{path.name}: generator {millions[0]:.1f} M, discriminator {millions[1]:.1f} M")
    wanted = {"demo": (0.65, 0.57), "liveband-90m": (92.9, 91.0)}.get(path.stem, (44.5, 45.6))
    assert millions == pytest.approx(wanted, rel=0.01)


def test_liveband_is_the_defaults_and_its_variants_change_one_thing_each() -> None:
    assert len(OURS) == 6
    found = {path.stem: difference(Config(), load(path), ignore=("loop.steps",)) for path in OURS[1:]}
    assert found.pop("liveband-90m")
    assert found == {
        "liveband": [],
        "liveband-bidirectional": ["generator.causal is True there and False here"],
        "liveband-fixed-gamma": ["adagp.step is 0.001 there and 0.0 here"],
        "liveband-no-sink": ["generator.sink is True there and False here"],
    }


def test_a_config_changes_its_base(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("seed: 5\ngenerator: {width: 64, blocks: 2}\nloop: {steps: 9}")
    config = load(written(tmp_path, "base: b.yaml\ngenerator: {blocks: 3}\nadagp: {step: 0.0}"), ("loop.steps=7",))
    assert (config.seed, config.generator.width, config.generator.blocks) == (5, 64, 3)
    assert (config.adagp.step, config.loop.steps) == (0.0, 7)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    config = load(written(tmp_path, "optimiser: {learning_rate: 2e-4}"), ("adagp.step=1e-2", "seed=3"))
    assert (config.optimiser.learning_rate, config.adagp.step, config.seed) == (2e-4, 1e-2, 3)


def test_overrides_win_and_leave_their_neighbours(tmp_path: Path) -> None:
    path = written(tmp_path, "loop: {steps: 10, checkpoint_every: 5}")
    config = load(path, ("loop.steps=20", "optimiser.betas=[0.5, 0.9]"))
    assert (config.loop.steps, config.loop.checkpoint_every, config.optimiser.betas) == (20, 5, (0.5, 0.9))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("generator: {widht: 3}", (), r"generator\.widht is not a setting; did you mean generator\.width\?"),
        ("loops: {steps: 3}", (), r"loops is not a setting; did you mean loop\?"),
        ("generator: {width: 1.5}", (), r"generator\.width is 1\.5: .*integer"),
        ("loop: {steps: ten}", (), r"loop\.steps is 'ten': .*integer"),
        ("loop: {steps: 0}", (), r"loop\.steps is 0: .*greater than or equal to 1"),
        ("loop: {tensorboard: 1}", (), r"loop\.tensorboard is 1: .*boolean"),
        ("adagp: {rule: signed}", (), r"adagp\.rule is 'signed': .*'sign', 'proportional' or 'multiplicative'"),
        ("generator: {heads: 3}", (), r"generator\.width is 512; it must be a multiple of 2 \* generator\.heads = 6"),
        ("discriminator: {groups: 7}", (), r"discriminator\.groups is 7; it must divide .* 1536"),
        ("adagp: {minimum: 2.0}", (), r"adagp\.gamma is 1\.0; it must lie between adagp\.minimum 2\.0"),
        ("batches: {crop_frames: 60}", (), r"batches\.crop_frames is 60; .*must be a multiple of 16"),
        ("loop: {keep_every: 1500}", (), r"loop\.keep_every is 1500; .* multiple of loop\.checkpoint_every = 1000"),
        ("loop: {precision: half}", (), r"loop\.precision is 'half': .*'auto', 'float32' or 'bfloat16'"),
        ("generator: 3", (), r"generator is 3: .*"),
        ("base: none.yaml", (), r"none\.yaml is not a file"),
        ("base: c.yaml", (), r"has a base with a base; name the latter"),
        (
            "batches: {conditions: a.parquet}",
            (),
            r"condition_dim 0; give both, a file and how long its vectors are, or",
        ),
        ("batches: {cache_gb: 0.0}", (), r"batches\.cache_gb is 0\.0: .*greater than 0"),
        ("optimiser: {betas: [0.0, 1.0]}", (), r"optimiser\.betas\.1 is 1\.0: .*less than 1"),
        ("adagp: {advantage: .nan}", (), r"adagp\.advantage is nan: .*finite"),
        ("optimiser: {learning_rate: .inf}", (), r"optimiser\.learning_rate is inf: .*finite"),
        ("seed: 99999999999999999999", (), r"seed is 99999999999999999999: .*less than 9223372036854775808"),
        ("[1, 2]", (), r"holds a list; it must hold sections"),
        ("a: [", (), r"is not YAML"),
        ("", ("loop.steps",), r"--set 'loop\.steps' is not of the form a\.b=value"),
        ("", ("loop.stepz=3",), r"loop\.stepz is not a setting; did you mean loop\.steps\?"),
        ("seed: 3", ("seed.x=3",), r"seed is a value, not a section"),
        ("", ("seed=[",), r"'\[' is not a YAML value"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(written(tmp_path, text), overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml is not a file; .*demo\.yaml"):
        load(tmp_path / "none.yaml")


def test_differences_are_named() -> None:
    other = Config.model_validate_json('{"seed": 1, "loop": {"steps": 5}, "optimiser": {"betas": [0.1, 0.9]}}')
    assert difference(Config(), other, ignore=("loop.steps",)) == [
        "seed is 0 there and 1 here",
        "optimiser.betas is (0.0, 0.99) there and (0.1, 0.9) here",
    ]
