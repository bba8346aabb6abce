from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

import prep.certified
from prep.certified import one_threaded
from prep.certify import Certificate
from prep.codecs import Codec
from tests.prep.made import save_small_codec

_certificates: dict[object, Certificate] = {}


@pytest.fixture
def codec(tmp_path: Path) -> str:
    return save_small_codec(tmp_path)


@pytest.fixture(autouse=True)
def equal_builds_are_certified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tests build the same small corpora with the same codec."""

    def certified(codec: Codec, audio: Sequence[Tensor]) -> Certificate:
        key = (codec.identity, *(clip.numpy().tobytes() for clip in audio))
        if key not in _certificates:
            _certificates[key] = one_threaded(codec, audio)
        return _certificates[key]

    monkeypatch.setattr(prep.certified, "one_threaded", certified)
