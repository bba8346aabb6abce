"""What configs/codec.yaml may say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prep.codecs import CausalConfig
from train.errors import ConfigError


class CodecRecipe(BaseModel):
    """Defaults are configs/codec.yaml's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # where the network differs from CausalConfig's defaults, such as {decoder_width: 1280}
    architecture: dict[str, int] = Field(default_factory=dict)
    start: str = ""  # a codec of ours whose weights to begin with (causal, causal=FILE); else principal components
    steps: int = Field(7000, gt=0)
    batch: int = Field(8, gt=0)
    crop_frames: int = Field(24, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    waveform_weight: float = Field(0.3, ge=0)
    waveform_below_hz: float = Field(1000.0, gt=0)
    fine_mel_weight: float = Field(0.5, ge=0)
    latent_noise: float = Field(0.05, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    components_frames: int = Field(6000, gt=0)
    save_every: int = Field(250, gt=0)
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("architecture")
    @classmethod
    def _is_known(cls, given: dict[str, int]) -> dict[str, int]:
        known = {field.name for field in fields(CausalConfig)}
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"{unknown[0]} is not one of {', '.join(sorted(known))}")
        return given

    @property
    def config(self) -> CausalConfig:
        return CausalConfig(**self.architecture)


def read_recipe(path: Path) -> CodecRecipe:
    """Raises ConfigError naming the setting that is wrong."""
    if not path.is_file():
        raise ConfigError(f"config {path} does not exist. The one that ships is configs/codec.yaml.")
    try:
        return CodecRecipe(**(yaml.safe_load(path.read_text()) or {}))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(CodecRecipe.model_fields)
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}. Settings: {known}.") from error
    except (TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a mapping of settings in YAML: {' '.join(str(error).split())}.") from error
