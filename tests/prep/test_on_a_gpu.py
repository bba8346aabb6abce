"""A build on a GPU, or a pretended one: all that belongs there is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prep.device import Device, device_of
from tests.prep.built import run, work_here
from tests.prep.made import write_corpus
from tests.prep.test_device import devices, latents
from tests.pretended import a_gpu


@pytest.mark.parametrize("streams", [4, 1])
def test_it_encodes_as_a_processor(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch, streams: int) -> None:
    root = write_corpus(tmp_path / "corpus", train=1)
    work_here(monkeypatch)
    run(root, tmp_path / "here", codec, device=Device("cpu", 24, streams))
    with a_gpu(monkeypatch):
        run(root, tmp_path / "there", codec, device=device_of("cuda", 24, streams))
        [told] = devices(tmp_path / "there")
    assert told and ", CUDA " in told
    here, there = latents(tmp_path / "here"), latents(tmp_path / "there")
    assert here.keys() == there.keys() and here
    for id, found in here.items():
        np.testing.assert_allclose(there[id].astype(float), found.astype(float), atol=1e-3, rtol=2e-3)
