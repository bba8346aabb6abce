"""What a recipe's YAML may say. Strict, frozen models; every default is the value most users want.

Tags beside values: [S] stated in a paper, [C] read in a project's code, [ours] chosen here.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prep.errors import PrepError
from prep.instruments import CLASSES


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Activity(Section):
    threshold_db: float = Field(-60.0, le=0)  # A-weighted RMS of a 20 ms frame [S: StreamMusicGen A.9]
    min_active_s: float = Field(1.0, ge=0)  # a stem that sounds for less is left out as silent [ours]
    # a target must sound together with what is heard in half of a window of this length [S: StreamMusicGen]
    window_s: float = Field(10.0, gt=0, le=3600)


class Instruments(Section):
    """Lists of classes (`prep/instruments.py` has the 18)."""

    allowed: list[str] = Field(default_factory=lambda: list(CLASSES), min_length=1)  # others are left out
    exclude_targets: list[str] = Field(default_factory=lambda: ["Vocal", "Unknown"])  # [C: StreamMusicGen]
    exclude_contexts: list[str] = Field(default_factory=list)  # in no mix, and never what the model hears
    group_by: Literal["stem", "class"] = "stem"  # class: stems of one class are summed as audio, with their balance

    @field_validator("allowed", "exclude_targets", "exclude_contexts")
    @classmethod
    def _are_classes(cls, names: list[str]) -> list[str]:
        if unknown := sorted(set(names) - set(CLASSES)):
            raise ValueError(f"no class {unknown[0]}; there are: {', '.join(CLASSES)}")
        return names


class Loudness(Section):
    # equal: every stem to stem_lufs; as_recorded: one gain for all, which brings the loudest there
    policy: Literal["equal", "as_recorded"] = "equal"
    stem_lufs: float = Field(-18.0, le=0, ge=-60)  # [ours]
    mix_lufs: float = Field(-18.0, le=0, ge=-60)  # [C: StreamMusicGen's evaluation]
    mix_offset_db: float = Field(6.0, ge=0, le=24)  # a mix's level is drawn within plus or minus this [ours]
    ceiling_db: float = Field(0.0, le=0)  # over this peak a stream is attenuated, never clipped
    true_peak: bool = False  # the ceiling holds for BS.1770's peaks between the samples, too
    max_gain_db: float = Field(40.0, ge=0)  # a nearly silent stem is not blown up by more


class Mixing(Section):
    subsets_per_target: int = Field(2, ge=1, le=64)  # r of the mix law [ours]
    # how many of the other stems: any number alike, all of them, a coin for each, or a weight for 1, 2, 3 ... of them
    size_law: Literal["uniform", "all", "coin"] | list[float] = "uniform"  # [S: LiveBand "random subset"; C: SMG "all"]

    @field_validator("size_law")
    @classmethod
    def _are_weights(cls, law: str | list[float]) -> str | list[float]:
        if isinstance(law, list) and (not law or min(law) < 0 or not 0 < sum(law) < 1e300):
            raise ValueError(f"weights {law} must be a list of numbers of 0 or more, one of them above 0")
        return law


class Augment(Section):
    """What a rendition may be changed by; the draws are per rendition, the same for all its stems but the gain."""

    renditions: int = Field(0, ge=0, le=64)  # further examples made of each training multitrack
    speed_probability: float = Field(0.5, ge=0, le=1)  # [C: STAGE]
    min_speed: float = Field(0.8, ge=0.5, le=1)  # [C: STAGE] 0.8 plays slower: 10 s become 12.5 s
    max_speed: float = Field(1.2, ge=1, le=2)  # [C: STAGE]
    pitch_probability: float = Field(0.5, ge=0, le=1)  # [C: STAGE]
    max_semitones: int = Field(4, ge=0, le=12)  # [C: STAGE] whole semitones, up or down
    pitch_drums: bool = False
    stem_gain_db: float = Field(3.0, ge=0, le=24)  # a gain for each stem within plus or minus this [ours]
    polarity_probability: float = Field(0.5, ge=0, le=1)  # [ours]
    swap_probability: float = Field(0.5, ge=0, le=1)  # left and right [ours]
    eq_probability: float = Field(0.5, ge=0, le=1)  # [ours]
    eq_db: float = Field(6.0, ge=0, le=24)  # three bands, each within plus or minus this [ours]
    low_pass_probability: float = Field(0.1, ge=0, le=1)  # [ours]
    min_low_pass_hz: float = Field(4000.0, ge=500, le=16000)  # [ours]


class Audio(Section):
    resample: bool = False  # allow sources at another rate than the codec's
    max_length_s: float = Field(1800.0, gt=0)
    unequal: Literal["pad", "trim"] = "pad"  # stems of unequal length: to the longest with silence, or to the shortest


class Limits(Section):
    """What one file may take before it is given up: quarantined in the scan, an error in the build."""

    decode_s: float = Field(120.0, gt=0)  # to read it [ours]
    decode_gb: float = Field(4.0, gt=0)  # of memory for its samples, by what its header says [ours]


class Shards(Section):
    size_mb: float = Field(256.0, ge=0.1)  # wanted size of a tar


class PrepConfig(Section):
    """The whole recipe of a build."""

    seed: int = 0
    codec: str = "causal"
    # every stream's audio is kept as FLAC beside the latents, rounded to 24 bits; `prep rebuild` then needs no source
    keep_audio: bool = False
    max_bad_fraction: float = Field(0.1, ge=0, le=1)  # a larger share of quarantined files stops the build
    instruments: Instruments = Instruments()
    activity: Activity = Activity()
    augment: Augment = Augment()
    loudness: Loudness = Loudness()
    mixing: Mixing = Mixing()
    audio: Audio = Audio()
    limits: Limits = Limits()
    shards: Shards = Shards()


def read_config(path: Path | None, overrides: tuple[str, ...] = ()) -> PrepConfig:
    """Read YAML, apply `a.b=c` overrides, check. Raises PrepError that names the setting, its value and the mend."""
    settings: Any = {}
    if path is not None:
        if not path.is_file():
            raise PrepError(f"config {path} is not a file. Recipes that ship are in configs/.")
        try:
            settings = yaml.load(path.read_text(), _Loader) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PrepError(f"config {path} is not YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
            raise PrepError(f"config {path} must be a mapping of settings, like `mixing: {{subsets_per_target: 4}}`.")
    for override in overrides:
        _apply(settings, override)
    try:
        return PrepConfig(**settings)
    except ValidationError as error:
        raise PrepError(_explain(error, path, overrides)) from error


class _Loader(yaml.SafeLoader):
    """A key that is there twice is an error: of two values one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{twice} is there twice, again in line {node.start_mark.line + 1} or below")
        return super().construct_mapping(node, deep)


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise PrepError(
            f"--set {override!r} must be of the form section.setting=value, such as mixing.subsets_per_target=4."
        )
    *sections, last = key.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
            raise PrepError(f"--set {override!r}: {section} is a value, not a section.")
    try:
        settings[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PrepError(f"--set {override!r}: {text!r} is not a YAML value.") from error


def _explain(error: ValidationError, file: Path | None, overrides: tuple[str, ...]) -> str:
    first = error.errors()[0]
    path = _setting(first["loc"])
    name = ".".join(path)
    given = any(f"{name}.".startswith(f"{override.partition('=')[0]}.") for override in overrides)
    where = "--set" if given or file is None else str(file)
    if first["type"] == "extra_forbidden":
        known = _known(path[:-1])
        nearest = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        mend = f"Did you mean {nearest[0]}?" if nearest else f"Known: {', '.join(known)}."
        return f"{where}: {name} is no setting. {mend}"
    hint = (
        " YAML reads 2e-4 as text; write 2.0e-4."
        if "float" in first["type"] and isinstance(first["input"], str)
        else ""
    )
    # where a setting may be one thing or another, each has its own say
    told = dict.fromkeys(each["msg"] for each in error.errors() if _setting(each["loc"]) == path)
    return f"{where}: {name} is {first['input']!r}: {', or: '.join(told)}.{hint}"


def _setting(place: tuple[int | str, ...]) -> list[str]:
    """The setting's path; pydantic adds which of several types it tried."""
    path: list[str] = []
    for part in place:
        path.append(str(part))
        if path[-1] not in _known(path[:-1]) or not _known(path):
            break
    return path


def _known(path: list[str]) -> list[str]:
    model: type[BaseModel] = PrepConfig
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)
