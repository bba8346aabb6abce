"""Real processes, as a user would start them: torchrun with gloo, beside one process with the same batches."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.made import settings, small, songs
from train import checkpoint, loop
from train.config import Config
from train.errors import DataError, RunError
from train.loop import fit
from train.ranks import Ranks, joined

ROOT = Path(__file__).parents[2]
LIMIT_S = 240  # a hang is told as a failure


def config(steps: int, **loop: Any) -> Config:
    return small(
        batches={"batch_size": 4},
        adagp={"advantage": 0.01, "step": 0.05},
        optimiser={"learning_rate": 1e-3, "ema_half_life_steps": 3.0},
        loop={"steps": steps, "checkpoint_every": 100, **loop},
    )


def two_processes(tmp: Path, data: Path, run: Path, c: Config) -> str:
    """What `torchrun --nproc-per-node 2 -m -- train.cli fit` said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "--", "train.cli", "fit", str(settings(tmp, c)), "--data", str(data), "--run", str(run)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = launcher.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        pytest.fail(f"the ranks hang: {launcher.communicate()[0][-2000:]}")
    assert launcher.returncode == 0, said
    return said


def same(one: Path, other: Path) -> None:
    """Equal to numerical noise: every curve at every step, both networks and the average, gamma, the data's place."""
    clocks = {"frames_per_s", "data_wait_s"}
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    assert len(rows[0]) == len(rows[1]) > 0
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        assert {k: a[k] for k in a.keys() - clocks} == pytest.approx({k: b[k] for k in a.keys() - clocks}, abs=1e-5)
    saved, again = checkpoint.load(one), checkpoint.load(other)
    assert (saved.step, saved.loader) == (again.step, again.loader)
    assert saved.gamma == pytest.approx(again.gamma, abs=1e-9) and saved.gamma != 1.0
    for name in ("generator", "average", "discriminator"):
        tensors, others = getattr(saved, name), getattr(again, name)
        assert tensors.keys() == others.keys()
        for key in tensors:
            torch.testing.assert_close(tensors[key], others[key], atol=1e-5, rtol=1e-4)


def test_two_processes_are_one_and_each_goes_on_from_the_other(tmp_path: Path) -> None:
    data = songs(tmp_path / "out")
    fit(config(5), data, tmp_path / "one")
    said = two_processes(tmp_path, data, tmp_path / "two", config(5, micro_batch_size=1))
    same(tmp_path / "one", tmp_path / "two")
    assert said.count("parameters: generator") == 1 and "on cpu and 1 more, each with 50.0% of a batch" in said

    fit(config(9), data, tmp_path / "whole")
    said = two_processes(tmp_path, data, tmp_path / "one", config(9))
    assert said.count("going on from step 5") == 1
    assert fit(config(9), data, tmp_path / "two") == 9
    same(tmp_path / "whole", tmp_path / "one")
    same(tmp_path / "whole", tmp_path / "two")


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world) == (0, 1) and not torch.distributed.is_initialized()
        assert ranks.mean({"a": 0.1, "b": torch.tensor(2.0)}) == {"a": 0.1, "b": 2.0}


def pretend(monkeypatch: pytest.MonkeyPatch, ranks: Ranks) -> None:
    @contextmanager
    def pretended(device: str) -> Iterator[Ranks]:
        yield ranks

    monkeypatch.setattr(loop, "joined", pretended)


def test_a_batch_that_cannot_be_shared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Ranks(1, 3))
    with pytest.raises(
        DataError, match=r"batches\.batch_size is 4, shared by 3 processes; make it a multiple of 3, or"
    ):
        fit(config(2), songs(tmp_path / "out"), tmp_path / "run")


def test_a_run_folder_that_others_do_not_share_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Ranks):
        def mean(self, values: Any) -> dict[str, float]:
            return {name: value + 2.5 for name, value in values.items()}

    pretend(monkeypatch, Elsewhere())
    with pytest.raises(RunError, match=r"run is at step 0 for process 0, at another for others; share its disk"):
        fit(config(2), songs(tmp_path / "out"), tmp_path / "run")
