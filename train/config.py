"""What a training config may say: strict, frozen, every number tagged by where it comes from.

[S] stated in LiveBand's paper, [C] read in a named project's code, [D] derived from stated numbers, [I] inferred or
ours. Most of LiveBand's hyper-parameters are not published; none tagged [I] may be called the paper's.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.errors import ConfigError


class Section(BaseModel):
    # what is NaN differs from itself: such a run could not go on
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Batches(Section):
    crop_frames: Count = 128  # [I] 11.9 s; divisible by 2 ** (discriminator.levels - 1)
    anticipation_frames: Natural = 1  # [D] 0, 1, 11 are the paper's tau of 0, 0.1, 1 s
    batch_size: Count = 128  # [S] of all processes together, so that a run is the same on any number of GPUs
    targets: list[str] = []  # classes to learn to play; [] is all that the build allows
    exclude_targets: list[str] = []  # classes to leave out, beside those that the build excludes
    silence_db: float = -60.0  # [C] SMG: a 50 Hz frame above it is active
    active_share: Share = 0.5  # [C] SMG: of the crop, in mix and shifted target at once
    start_share: Share = 0.05  # [I] of crops begin at a song's true start, as a performance does
    redraws: Natural = 16  # [C] SMG: so many more mixes are tried by the law; then one of those that sound is taken
    statistics: Literal["role", "pooled"] = "role"  # [I] latents are normalised; mixes and stems apart, or together
    conditions: str = ""  # a Parquet file of id, stem, vector: conditions targets beside their class (CLAP); "" is none
    condition_dim: Natural = 0  # how long the vectors are
    cache_gb: Positive = 100.0  # of a remote dataset's shards on disk; where it is smaller, the order depends on it

    @model_validator(mode="after")
    def _conditions_have_a_length(self) -> Self:
        if bool(self.conditions) != bool(self.condition_dim):
            raise ValueError(
                f"batches.conditions is {self.conditions!r} and batches.condition_dim {self.condition_dim}; "
                "give both, a file and how long its vectors are, or neither"
            )
        return self


class Generator(Section):
    width: Count = 512  # [C] CoDiCodec
    blocks: Count = 14  # [I] 44.5 M parameters; CoDiCodec has 12 blocks
    heads: Count = 4  # [C] CoDiCodec: head dim 128
    mlp_mult: Annotated[int, Field(ge=2, multiple_of=2)] = 4  # [C] CoDiCodec: hidden and gate together
    noise_dim: Count = 64  # [C] R3GAN's z
    context_frames: Count = 128  # [I] attention window, the frame itself included
    causal: bool = True  # [S] false hears all of a crop: the paper's upper bound, which cannot play live
    sink: bool = True  # [S] a learned scalar a head
    class_dropout: Share = 0.1  # [I] a probability for each network is stated, its value is not
    condition_dropout: Share = 0.1  # [I] the same for batches.conditions

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"generator.width is {self.width}; it must be a multiple of 2 * generator.heads = {2 * self.heads}, "
                "because rotary positions turn pairs within a head"
            )
        return self


class Discriminator(Section):
    width: Count = 768  # [C] R3GAN; "fixed width" is stated, its value is not
    groups: Count = 96  # [C] R3GAN
    blocks_per_level: Count = 3  # [I] 45.6 M: as many as the generator is stated; R3GAN has 2
    levels: Count = 5  # [S]
    class_dropout: Share = 0.1  # [I]
    condition_dropout: Share = 0.1  # [I]
    alignment: Literal["wall", "generator"] = "wall"  # [I] target beside the mix sounding with it, or the one it heard

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        if (2 * self.width) % self.groups:
            raise ValueError(
                f"discriminator.groups is {self.groups}; it must divide 2 * discriminator.width = {2 * self.width}"
            )
        return self


class AdaGP(Section):
    rule: Literal["sign", "proportional", "multiplicative"] = "sign"  # [I] the form; the direction is stated
    advantage: float = 1.0  # [I] a*, the gap of logits that gamma steers towards
    step: Annotated[float, Field(ge=0)] = 1e-3  # [I] a "fixed step size" is stated; 0 keeps gamma fixed
    gamma: Positive = 1.0  # [I] where it starts
    minimum: Positive = 1e-4  # [I]
    maximum: Positive = 100.0  # [I]

    @model_validator(mode="after")
    def _gamma_between(self) -> Self:
        if not self.minimum <= self.gamma <= self.maximum:
            raise ValueError(
                f"adagp.gamma is {self.gamma}; it must lie between adagp.minimum {self.minimum} "
                f"and adagp.maximum {self.maximum}"
            )
        return self


class Optimiser(Section):
    learning_rate: Positive = 2e-4  # [C] R3GAN's first; that it is fixed is stated
    betas: tuple[Decay, Decay] = (0.0, 0.99)  # [C] R3GAN
    warmup_steps: Natural = 1000  # [S]
    ema_half_life_steps: Annotated[float, Field(ge=0)] = 0.0  # [C] R3GAN plays an average of G; 0 plays G itself
    penalty_every: Count = 8  # [C] R3GAN's authors, issue 9; 1 is R3GAN itself: both penalties at every step


class Loop(Section):
    """How a run is done; the one section that may change when it goes on."""

    steps: Count = 750_000  # [S]
    checkpoint_every: Count = 1000  # [I]
    keep_last: Count = 1  # so many checkpoints are kept, in RUN/kept if more than the last
    keep_every: Natural = 0  # and those of each so many steps, for ever; 0 is none
    micro_batch_size: Natural = 0  # how many pairs a process takes at a time, for its memory's sake; 0 is all at once
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # [S] bf16 autocast; auto: on a GPU, else float32
    attention: Literal["auto", "sdpa"] = (
        "auto"  # [S] FlexAttention; auto: compiled on a GPU, else SDPA: the same numbers
    )
    compile: Literal["auto", "none", "aot_eager", "inductor"] = "auto"  # [S] torch.compile; auto: inductor on a GPU
    peak_tflops: Annotated[float, Field(ge=0)] = 0.0  # one device's, for its share in the curves; 0 leaves that out
    tensorboard: bool = False
    listen_every: Natural = 5000  # [I] steps from one listening to validation songs (RUN/listen) to the next; 0: none

    @model_validator(mode="after")
    def _kept_are_written(self) -> Self:
        if self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"loop.keep_every is {self.keep_every}; it must be a multiple of loop.checkpoint_every = "
                f"{self.checkpoint_every}, for no other checkpoints are written"
            )
        return self


class Config(Section):
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    batches: Batches = Batches()
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    adagp: AdaGP = AdaGP()
    optimiser: Optimiser = Optimiser()
    loop: Loop = Loop()

    @model_validator(mode="after")
    def _crop_divides(self) -> Self:
        divisor = 2 ** (self.discriminator.levels - 1)
        if self.batches.crop_frames % divisor:
            raise ValueError(
                f"batches.crop_frames is {self.batches.crop_frames}; discriminator.levels = "
                f"{self.discriminator.levels} halve it {self.discriminator.levels - 1} times, "
                f"so it must be a multiple of {divisor}"
            )
        return self


class _Yaml(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as the number it looks like; YAML 1.1 wants 2.0e-4."""


_Yaml.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"])


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Defaults, under the YAML file, under `a.b=c` overrides. Raises ConfigError, one line a mistake.

    `base: OTHER.yaml` in it names another file of its folder, which it then changes.
    """
    values = _read(path)
    if "base" in values:
        base = _read(path.parent / str(values.pop("base")))
        if "base" in base:
            raise ConfigError(f"config {path} has a base with a base; name the latter, and repeat what lies between")
        values = _merged(base, values)
    for override in overrides:
        _override(values, override)
    return parse(values, str(path))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"config {path} is not a file; configs/ of the repository holds some, such as demo.yaml")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Yaml)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not YAML: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} holds a {type(values).__name__}; it must hold sections such as `generator:`")
    return values


def _merged(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The base, where `values` say nothing else."""
    changed = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in values.items()
    }
    return {**base, **changed}


def parse(values: dict[str, Any], where: str) -> Config:
    """The config of plain values, for instance those that a checkpoint holds. Raises ConfigError."""
    try:
        # by way of JSON, where strict pydantic takes a list for a tuple
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(mistake) for mistake in error.errors()) + f" ({where})") from None


def difference(old: Config, new: Config, ignore: tuple[str, ...] = ()) -> list[str]:
    """What separates two configs, as "a.b is 1 there and 2 here"."""
    there, here = _flat(old.model_dump()), _flat(new.model_dump())
    changed = [key for key in here if key not in ignore and there[key] != here[key]]
    return [f"{key} is {there[key]} there and {here[key]} here" for key in changed]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _override(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override!r} is not of the form a.b=value, such as loop.steps=100")
    *sections, key = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override!r}: {section} is a value, not a section")
    try:
        values[key] = yaml.load(text, _Yaml)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value") from None


def _explain(mistake: Any) -> str:
    place = [str(part) for part in mistake["loc"]]
    name = ".".join(place)
    if mistake["type"] == "extra_forbidden":
        known = list(_model_at(place[:-1]).model_fields)
        near = difflib.get_close_matches(place[-1], known, 1, 0.5)
        mend = f"did you mean {'.'.join([*place[:-1], *near])}?" if near else f"the settings are: {', '.join(known)}"
        return f"{name} is not a setting; {mend}"
    message = mistake["msg"].removeprefix("Value error, ")
    return message if not name or mistake["type"] == "value_error" else f"{name} is {mistake['input']!r}: {message}"


def _model_at(place: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for part in place:
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        model = annotation
    return model
