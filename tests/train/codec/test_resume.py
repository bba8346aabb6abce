"""The codec's training goes on as if it had never stopped, and refuses to go on as another run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from torch import Tensor

from prep.codecs import load_codec
from tests.prep.made import SMALL, tones
from train.codec import fit
from train.codec.checkpoint import load
from train.codec.fit import Trainer, fit_codec
from train.codec.recipe import CodecRecipe
from train.errors import RunError

RATE = 44100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("songs")
    for number in range(2):
        (root / f"Track{number}" / "stems").mkdir(parents=True)
        stems = tones(number, 3, 2.0)
        for name, audio in stems.items():
            sf.write(root / f"Track{number}" / "stems" / f"{name}.flac", audio, RATE)
        sf.write(root / f"Track{number}" / "mix.flac", sum(stems.values()) / 3, RATE)
    return root


def recipe(**changes: Any) -> CodecRecipe:
    values = {
        "architecture": asdict(SMALL),
        "steps": 6,
        "batch": 2,
        "crop_frames": 4,
        "components_frames": 60,
        "save_every": 2,
        "warmup_steps": 2,
    }
    return CodecRecipe(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert fit_codec(recipe(), corpus, run) == 6
    return run


@pytest.fixture
def dies_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the given step raise, or do what is asked before it is taken."""
    step = Trainer.step

    def arm(fatal: int, signalled: bool = False) -> None:
        def fragile(self: Trainer, audio: Tensor, number: int) -> dict[str, float]:
            if number == fatal and not signalled:
                raise MemoryError
            if number == fatal:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, audio, number)

        monkeypatch.setattr(Trainer, "step", fragile)

    return arm


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "s"} for row in rows(run)]


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def test_a_killed_run_goes_on_bit_for_bit(
    corpus: Path, whole: Path, tmp_path: Path, dies_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies_at(3)
    with pytest.raises(MemoryError):
        fit_codec(recipe(), corpus, tmp_path)
    assert len(rows(tmp_path)) == 3 and load(tmp_path).step == 2  # a step beyond the checkpoint is dropped
    monkeypatch.undo()
    torch.manual_seed(99)
    assert fit_codec(recipe(), corpus, tmp_path) == 6
    assert without_time(tmp_path) == without_time(whole)
    assert [row["step"] for row in rows(whole)] == [1, 2, 3, 4, 5, 6]
    seconds = [row["s"] for row in rows(tmp_path)]
    assert seconds == sorted(seconds)
    for part in ("model", "average", "optimizer"):
        pairs = list(zip(*(tensors(getattr(load(run), part)) for run in (whole, tmp_path)), strict=True))
        assert len(pairs) > 20 and all(torch.equal(a, b) for a, b in pairs)
    codecs = [load_codec(f"causal={run}/causal.safetensors") for run in (whole, tmp_path)]
    assert codecs[0].identity == codecs[1].identity


def test_ctrl_c_finishes_the_step_and_saves(corpus: Path, whole: Path, tmp_path: Path, dies_at: Any) -> None:
    dies_at(2, signalled=True)
    assert fit_codec(recipe(), corpus, tmp_path) == 3
    assert load(tmp_path).step == 3 and (tmp_path / "causal.safetensors").is_file()
    assert fit_codec(recipe(), corpus, tmp_path) == 6
    assert without_time(tmp_path) == without_time(whole)


def test_steps_may_be_raised_and_the_rate_follows(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    rate = fit._learning_rate
    monkeypatch.setattr(fit, "_learning_rate", lambda r, step: asked.append(r.steps) or rate(r, step))
    fit_codec(recipe(steps=3), corpus, tmp_path)
    assert fit_codec(recipe(steps=5, save_every=50), corpus, tmp_path) == 5
    assert asked == [3] * 3 + [5] * 2
    assert load(tmp_path).step == 5 and load(tmp_path).recipe["steps"] == 5
    assert len(rows(tmp_path)) == 5
    assert rows(tmp_path)[0]["loss"] == rows(whole)[0]["loss"]


def test_a_finished_run_stays_as_it_is(corpus: Path, whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_text()
    (whole / "causal.safetensors").unlink()  # only what is lost comes back
    assert fit_codec(recipe(), corpus, whole) == 6
    assert (whole / "metrics.jsonl").read_text() == before and (whole / "causal.safetensors").is_file()


def test_another_run_is_refused(corpus: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"latent_noise is 0.05 there and 0.1 here. Choose another --run"):
        fit_codec(recipe(latent_noise=0.1), corpus, whole)
    with pytest.raises(RunError, match=r"seed is 0 there and 1 here; wave_dim is"):
        fit_codec(recipe(seed=1, architecture={}), corpus, whole)
    other = tmp_path / "Track0"
    other.mkdir()
    sf.write(other / "mix.flac", np.zeros((RATE, 2)), RATE)
    with pytest.raises(RunError, match="other songs"):
        fit_codec(recipe(), tmp_path, whole)


def test_what_cannot_be_gone_on_from_is_told(corpus: Path, whole: Path, tmp_path: Path) -> None:
    cut = (whole / "checkpoint.pt").read_bytes()[:1000]
    (tmp_path / "checkpoint.pt").write_bytes(cut)
    with pytest.raises(RunError, match=r"checkpoint.pt cannot be read"):
        fit_codec(recipe(), corpus, tmp_path)
    torch.save({"format": 0}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match="another format"):
        fit_codec(recipe(), corpus, tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "causal.safetensors").write_bytes(b"weights")
    with pytest.raises(RunError, match=r"weights and no checkpoint.pt"):
        fit_codec(recipe(), corpus, tmp_path)
