import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from shards import write_index, write_shard
from shards.index import HEADER
from shards.remote import Remote
from tests.train.made import CLASSES, DIM, LinearCodec, example, identity_json, small, songs, write
from train import checkpoint, game, loop
from train.batches import Batch
from train.cost import flops_a_step
from train.curves import Curves
from train.errors import DataError, DivergedError, RunError, TrainError
from train.game import Game, train_step
from train.loop import fit
from train.losses import discriminator_loss


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_config_curves_and_checkpoint(tmp_path: Path) -> None:
    data, run, said = songs(tmp_path / "out"), tmp_path / "run", []
    assert fit(small(), data, run, say=said.append) == 4
    assert "36 pairs of 3 songs; parameters: generator 0.01 M" in said[0]
    assert yaml.safe_load((run / "config.yaml").read_text()) == json.loads(small().model_dump_json())
    curves = rows(run)
    assert [row["step"] for row in curves] == [1, 2, 3, 4]
    wanted = {"loss_g", "loss_d", "advantage", "sign", "gamma", "grad_norm_d", "grad_norm_g", "learning_rate"}
    wanted |= {"frames_per_s", "data_wait_s", "redraws", "song_starts"}
    assert all(wanted <= row.keys() and "silent" not in row for row in curves)
    assert [sorted({"r1", "r2"} & row.keys()) for row in curves] == [["r1"], [], ["r2"], []]
    saved = checkpoint.load(run)
    assert (saved.step, saved.codec, saved.targets) == (4, identity_json(), {"Piano": 12, "Bass": 12, "Percussive": 12})
    assert saved.loader["taken"] == 16


def test_stems_that_are_never_drawn_are_told(tmp_path: Path) -> None:
    levels = np.full((4, 186), -20.0)
    levels[3] = -90
    data, said = write(tmp_path / "out", [example("a", stems=4, levels=levels), example("b")]), []
    assert fit(small(loop={"steps": 1}), data, tmp_path / "run", say=said.append) == 1
    told = "1 of 7 target stems are never drawn: nowhere do they sound together with a stored mix in 50% of a crop"
    assert said[0].splitlines()[1:] == [told]


def test_the_peaks_share_is_measured_where_the_peak_is_given(tmp_path: Path) -> None:
    data, said = songs(tmp_path / "out"), []
    fit(small(loop={"steps": 2, "peak_tflops": 2.0}), data, tmp_path / "run", say=said.append)
    tera = float(re.search(r"M, (\S+) TFLOP a step; on cpu", said[0])[1])  # type: ignore[index]
    assert tera == pytest.approx(flops_a_step(small(), DIM, len(CLASSES)) / 1e12, rel=0.01)
    for row in rows(tmp_path / "run"):  # 2 batches of 2 crops of 8 frames
        assert row["peak_share"] == pytest.approx(tera / (32 / row["frames_per_s"]) / 2.0, rel=0.01)
    fit(small(loop={"steps": 2}), data, tmp_path / "other")
    assert all("peak_share" not in row for row in rows(tmp_path / "other"))


def flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else []
    return [tensor for value in inner for tensor in flat(value)]


def test_two_legs_are_one_run_bit_for_bit(tmp_path: Path) -> None:
    data = songs(tmp_path / "out")
    fit(small(loop={"steps": 7}), data, tmp_path / "whole")
    said: list[str] = []
    fit(small(loop={"steps": 3}), data, tmp_path / "legs")
    fit(small(loop={"steps": 7}), data, tmp_path / "legs", say=said.append)
    assert "going on from step 3" in said[0]
    whole, legs = checkpoint.load(tmp_path / "whole"), checkpoint.load(tmp_path / "legs")
    for name in ("generator", "average", "discriminator", "generator_optimiser", "discriminator_optimiser"):
        pairs = list(zip(flat(getattr(whole, name)), flat(getattr(legs, name)), strict=True))
        assert pairs and all(torch.equal(a, b) for a, b in pairs)
    assert (whole.gamma, whole.loader) == (legs.gamma, legs.loader)
    clocks = {"frames_per_s", "data_wait_s"}
    curves = [[{k: row[k] for k in row.keys() - clocks} for row in rows(tmp_path / run)] for run in ("whole", "legs")]
    assert curves[0] == curves[1]


def test_a_finished_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    data, run, said = songs(tmp_path / "out"), tmp_path / "run", []
    fit(small(), data, run)
    before = (run / "checkpoint.pt").stat().st_mtime_ns
    assert fit(small(), data, run, say=said.append) == 4
    assert said == [f"{run} is finished: 4 steps. To go on, raise loop.steps (--set loop.steps=N)."]
    assert (run / "checkpoint.pt").stat().st_mtime_ns == before


def test_curves_beyond_the_checkpoint_are_measured_again(tmp_path: Path) -> None:
    data, run = songs(tmp_path / "out"), tmp_path / "run"
    fit(small(loop={"steps": 2}), data, run)
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "loss_d": 99}\n{"step": 4, "lo')  # a killed run's
    fit(small(), data, run)
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4]
    assert all(row["loss_d"] < 99 for row in rows(run))


def test_curves_stay_where_going_on_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    with pytest.raises(OSError), Curves.open(tmp_path, 2, False):
        assert path.read_text() == '{"step": 1}\n{"step": 2}\n'  # on disk already, not in a buffer
        raise OSError


def test_ctrl_c_ends_the_step_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(game: Game, first: Batch, second: Batch, step: int, config: Any) -> dict[str, float]:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return train_step(game, first, second, step, config)

    monkeypatch.setattr(loop, "train_step", pressed)
    before = signal.getsignal(signal.SIGINT)
    assert fit(small(loop={"steps": 9, "checkpoint_every": 100}), songs(tmp_path / "out"), tmp_path / "run") == 3
    assert checkpoint.load(tmp_path / "run").step == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with loop.stoppable() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_loss_that_is_not_finite_stops_with_step_and_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def spoilt(real: Tensor, fake: Tensor) -> Tensor:
        calls.append(1)
        return discriminator_loss(real, fake) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(game, "discriminator_loss", spoilt)
    message = r"discriminator's loss is nan, .* at step 4; .*checkpoint\.pt is the last good checkpoint \(step 2\)\."
    with pytest.raises(DivergedError, match=message):
        fit(small(loop={"steps": 9}), songs(tmp_path / "out"), tmp_path / "run")
    saved = checkpoint.load(tmp_path / "run")
    assert saved.step == 2 and all(tensor.isfinite().all() for tensor in saved.discriminator.values())


def test_before_the_first_checkpoint_there_is_none_to_name(tmp_path: Path) -> None:
    wild = small(optimiser={"learning_rate": 1e30}, loop={"steps": 50, "checkpoint_every": 50})
    with pytest.raises(DivergedError, match=r"there is no checkpoint yet\. Start another run with a lower"):
        fit(wild, songs(tmp_path / "out"), tmp_path / "run")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of six songs in a shard each, and what is fetched from there into a cache of its own."""
    folder, names = tmp_path / "out" / "generations" / "p0-c0", [f"train-{number:06d}.tar" for number in range(6)]
    write(tmp_path / "out", [example("other", split="test")])
    index = json.loads((folder / "dataset.json").read_text())
    for name in names:
        write_shard(folder / name, [example(f"song{name[6:12]}", members=((0, 1), (1, 2), (0, 2)))], {})
    header = {key: index[key] for key in (*HEADER, "pairs")}
    write_index(folder, header, {"train": names, "test": ["test-000000.tar"]})
    memory, fetched, fill = fsspec.filesystem("memory"), [], Remote._fill
    memory.put(str(tmp_path / "out"), "/songs", recursive=True)
    monkeypatch.setenv("GREENROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        Remote, "_fill", lambda self, listed, *rest: (fetched.append(listed.name), fill(self, listed, *rest))[1]
    )
    yield "memory://songs", fetched
    memory.rm("/songs", recursive=True)


def test_a_remote_datasets_shards_are_told_and_fetched_once(remote: tuple[str, list[str]], tmp_path: Path) -> None:
    (data, fetched), said = remote, []
    assert fit(small(), data, tmp_path / "run", say=said.append) == 4
    gb = sum(path.stat().st_size for path in tmp_path.glob("out/generations/p0-c0/train-*.tar")) / 1e9
    first = (
        f"the train split's {gb:.3g} GB of shards are fetched first, for where they sound; but for those in the cach"
    )
    assert said[0].startswith(first) and "parameters: generator" in said[1]
    assert fetched == [f"train-{number:06d}.tar" for number in range(6)]
    fit(small(), tmp_path / "out", tmp_path / "local")
    assert rows(tmp_path / "run")[-1]["loss_g"] == rows(tmp_path / "local")[-1]["loss_g"]


def test_a_cache_that_is_too_small_is_told_and_kept_to(remote: tuple[str, list[str]], tmp_path: Path) -> None:
    (data, fetched), said = remote, []
    shard = max(path.stat().st_size for path in tmp_path.glob("out/generations/p0-c0/*.tar"))
    settings = {"batches": {"cache_gb": 4 * shard / 1e9}, "loop": {"steps": 30}}
    assert fit(small(**settings), data, tmp_path / "run", say=said.append) == 30
    assert "and again while training: batches.cache_gb is " in said[0]
    assert fetched[:6] == [f"train-{number:06d}.tar" for number in range(6)] and len(fetched) > 6
    assert checkpoint.load(tmp_path / "run").loader["order"].startswith("windows of 1 of 6 shards")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) <= 4 * shard
    with pytest.raises(RunError, match=r"run of another config: batches\.cache_gb is"):
        fit(small(loop={"steps": 31}), data, tmp_path / "run")


def test_too_few_pairs_are_told(tmp_path: Path) -> None:
    data = write(tmp_path / "out", [example("a", stems=2, frames=12)])
    with pytest.raises(DataError, match=r"holds 2 pairs, and a step takes 2 \* batches\.batch_size = 4; .* at most 1"):
        fit(small(), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(small(), songs(tmp_path / "out"), run)
    other = write(tmp_path / "other", [example("a", frames=80)], codec=identity_json(weights="v"))
    with pytest.raises(RunError, match=r"codec is not the one .*: weights v here, w there"):
        fit(small(), other, run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"--device is cuda, and torch finds no CUDA GPU here; use --device cpu"):
        fit(small(), tmp_path, tmp_path / "run", device="cuda")


def test_tensorboard_gets_the_curves_where_wanted(tmp_path: Path) -> None:
    fit(small(loop={"steps": 2, "tensorboard": True}), songs(tmp_path / "out"), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("at", ["step", "networks"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("CPU: can't allocate memory: you")])
def test_too_little_memory_names_the_setting_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: RuntimeError
) -> None:
    def full(*_: Any) -> dict[str, float]:
        raise error

    monkeypatch.setattr(*(loop, "train_step") if at == "step" else (Game, "new"), full)
    message = r"memory is too small for a step; there is no checkpoint yet\. Lower loop\.micro_batch_size, .*now 0: all"
    with pytest.raises(RunError, match=message):
        fit(small(), songs(tmp_path / "out"), tmp_path / "run")


def test_what_it_plays_is_written_every_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "out", [example(f"s{n}", frames=120, members=((0, 1), (1, 2), (0, 2))) for n in range(3)])
    monkeypatch.setattr(loop, "load_codec", lambda spec: LinearCodec())
    settings, said = small(loop={"listen_every": 3}), []
    fit(settings, data, tmp_path / "run", say=said.append)
    [folder] = (path for path in (tmp_path / "run" / "listen").iterdir() if path.is_dir())
    assert folder.name == "00000003" and list(folder.glob("*-played.wav")) and list(folder.parent.glob("*-target.wav"))
    monkeypatch.undo()  # and another codec than the dataset's stops nothing
    assert fit(settings, data, tmp_path / "other", say=said.append) == 4
    assert "nothing will be played to listen to: the dataset's codec made is not" in said[-1]
    assert rows(tmp_path / "other")[2]["loss_g"] == rows(tmp_path / "run")[2]["loss_g"]
