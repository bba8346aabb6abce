"""Four real processes, as a user would start them; rank.py is what each runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards import set_current, shard_names, write_index, write_shard
from tests.shards.made import HEADER, example

ROOT = Path(__file__).parents[2]
COUNTS = (9, 1, 4)
LIMIT_S = 120  # a hang is told as a failure; each test takes a few seconds


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three uneven shards."""
    out = tmp_path_factory.mktemp("out")
    folder = out / "generations" / HEADER["generation"]
    folder.mkdir(parents=True)
    names = shard_names("train", len(COUNTS))
    for shard, (name, count) in enumerate(zip(names, COUNTS, strict=True)):
        write_shard(folder / name, [example(f"s{shard}-{i}") for i in range(count)], {"machine": "made"})
    write_index(folder, HEADER, {"train": names, "validation": [], "test": []})
    set_current(out, HEADER["generation"])
    return out


def torchrun(*arguments: str) -> tuple[int, str]:
    """The launcher's exit status, and what it and the ranks said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    command += [str(Path(__file__).with_name("rank.py")), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = launcher.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        said, _ = launcher.communicate()
        pytest.fail(f"the ranks hang: {said[-2000:]}")
    return launcher.returncode, said


def test_every_rank_takes_the_same_steps_over_uneven_shards(out: Path, tmp_path: Path) -> None:
    status, said = torchrun(str(out), str(tmp_path), "4")
    assert status == 0, said
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    assert [(rank["rank"], rank["world"], rank["counts"]) for rank in ranks] == [(r, 4, [9, 1, 4]) for r in range(4)]
    assert {rank["steps"] for rank in ranks} == {len(rank["seen"]) for rank in ranks} == {7}  # 4 * 14 / (4 * 2)
    assert all(rank["sums"] == [8.0] * 7 for rank in ranks)
    seen = [index for step in range(7) for rank in ranks for index in rank["seen"][step]]
    for epoch in range(4):
        assert sorted(seen[14 * epoch : 14 * (epoch + 1)]) == list(range(14))


def test_a_killed_rank_ends_the_others_with_an_error(out: Path, tmp_path: Path) -> None:
    status, said = torchrun(str(out), str(tmp_path), "100000", "3")
    assert status not in (0, -signal.SIGKILL), said
    assert "Signal 9 (SIGKILL)" in said
    assert not list(tmp_path.glob("*.json"))  # none took what was left of 175,000 steps by itself
    started = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(started) == 4 and not any(alive(process) for process in started)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
