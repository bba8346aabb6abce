"""Training on a GPU, or a pretended one: all that belongs there is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pretended import a_gpu
from tests.train.made import LinearCodec, example, small, write
from train.loop import fit


def test_it_trains_as_on_a_processor_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [example(name, members=((0, 1), (1, 2), (0, 2)), frames=150) for name in "abc"]
    data, here, there = write(tmp_path / "out", made), tmp_path / "here", tmp_path / "there"
    monkeypatch.setattr("train.loop.load_codec", lambda spec: LinearCodec())
    loop = {"compile": "none", "precision": "float32", "micro_batch_size": 4, "listen_every": 2}
    fit(small(loop=loop), data, here)
    with a_gpu(monkeypatch):
        fit(small(loop={**loop, "steps": 2}), data, there, "cuda")
        fit(small(loop=loop), data, there, "cuda")
    ours, theirs = ((run / "metrics.jsonl").read_text().splitlines() for run in (here, there))
    assert len(ours) == len(theirs) == 4
    for one, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        for name in ("loss_g", "loss_d", "grad_norm_d", "grad_norm_g", "gamma"):
            assert other[name] == pytest.approx(one[name], rel=1e-3)
    for run in (here, there):
        assert {path.name for path in (run / "listen").iterdir()} >= {"00000002", "00000004"}
