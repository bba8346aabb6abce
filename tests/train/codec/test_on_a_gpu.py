"""Training the codec on a GPU, or a pretended one: all that belongs there is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pretended import a_gpu
from tests.train.codec.test_fit import corpus, recipe
from train.codec.fit import fit_codec

__all__ = ["corpus"]


def test_it_trains_as_on_a_processor_and_goes_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_codec(recipe(), corpus, tmp_path / "here")
    with a_gpu(monkeypatch):
        fit_codec(recipe(steps=2), corpus, tmp_path / "there", "cuda")
        fit_codec(recipe(), corpus, tmp_path / "there", "cuda")
    here, there = (load_file(tmp_path / name / "causal.safetensors") for name in ("here", "there"))
    for name, weights in here.items():
        torch.testing.assert_close(there[name], weights, atol=2e-3, rtol=1e-2)
