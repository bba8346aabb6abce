"""SIGKILL at drawn moments, then the same command; `python -m tests.bench.kills` does it fifty times."""

from pathlib import Path

import numpy as np

from tests.bench.kills import Trial, contents, disturbed
from tests.prep.made import write_corpus


def test_killed_builds_end_as_undisturbed_ones(tmp_path: Path, codec: str) -> None:
    root = write_corpus(tmp_path / "corpus")
    command = ["--dataset", "slakh", "--root", str(root), "--workers", "2", "--set", f"codec={codec}"]
    trial = Trial(command, tmp_path / "whole", np.random.default_rng(5))
    trial.measure()
    whole = contents(trial.out)
    assert sum(name.endswith(".tar") for name in whole) == 3
    assert disturbed(trial, 3, whole, tmp_path) >= 1
    assert not trial.wrong and sum(trial.tally.values()) == 3
