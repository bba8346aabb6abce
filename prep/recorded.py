"""What a dataset says of its own making: the config and the codec, for whoever works on with it."""

from __future__ import annotations

from pydantic import ValidationError

import shards
from prep.codecs import Codec, load_codec
from prep.config import PrepConfig
from prep.errors import PrepError


def recorded_config(dataset: shards.Dataset) -> PrepConfig:
    """Raises PrepError where another release wrote it."""
    try:
        return PrepConfig(**dataset.index["config"])
    except ValidationError as error:
        setting = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise PrepError(
            f"{dataset.place}/dataset.json: its config is of another release ({setting}). Run the build again."
        ) from error


def recorded_codec(dataset: shards.Dataset) -> Codec:
    """The codec that made the dataset. Raises PrepError where its weights are others by now."""
    codec = load_codec(dataset.index["config"]["codec"])
    if codec.identity.to_json() != dataset.codec:
        raise PrepError(f"the dataset was made by another codec {dataset.codec['name']}. Run its build again.")
    return codec
