"""Encoding as on a GPU, on this processor: streams that share calls, pieces made ahead in a thread; and what is said
where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import shards
from prep import example
from prep.cli import main
from prep.codecs import CausalCodec, Codec, State, load_codec
from prep.codecs.streams import STRETCH_FRAMES
from prep.config import Mixing
from prep.device import BATCH_STREAMS, CPU, STREAM_FRAMES, Device, device_of
from prep.errors import PrepError
from tests.prep.built import files, run, work_here
from tests.prep.made import save_small_codec, tones, write_corpus, write_track

# all of its path but the device itself
GPU = Device("cpu", batch_frames=24, batch_streams=4, ahead=True)
LONE = Device("cpu", batch_frames=12, ahead=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_track(tmp_path / "corpus/train/Track00008", tones(3, stems=5, seconds=4.1))
    return write_corpus(tmp_path / "corpus", train=1)


def devices(out: Path) -> set[str | None]:
    """As the live generation's receipts tell."""
    folder = out / "generations" / shards.current(out)
    return {shards.read_receipt(path).fingerprint.get("device") for path in folder.glob("*-??????.json")}


def latents(out: Path) -> dict[str, np.ndarray]:
    return {record.id: np.concatenate([record["stems"], record["mixes"]]) for record in shards.open(out)}


@pytest.mark.parametrize("keep_audio", [False, True])
def test_bytes_do_not_hang_on_what_else_is_encoded(tmp_path: Path, root: Path, codec: str, keep_audio: bool) -> None:
    """Nor on the number of workers: a build that adds some streams to others gives the bytes of one from nothing."""
    few, out, fresh = Mixing(subsets_per_target=1), tmp_path / "out", tmp_path / "fresh"
    run(root, out, codec, device=GPU, keep_audio=keep_audio, mixing=few)
    for path in (root / "train/Track00001").rglob("S01.flac"):
        (root / "train/Track00008/stems/S02.flac").write_bytes(path.read_bytes())
    report = run(root, out, codec, device=GPU, keep_audio=keep_audio)
    assert report.work and report.work.encoded and report.work.copied
    run(root, fresh, codec, device=GPU, keep_audio=keep_audio, workers=2)
    assert files(fresh).items() <= files(out).items() and files(fresh)
    assert devices(out) == {"cpu, 6 frames of 4 streams a call"}


def test_numbers_are_the_processors_up_to_rounding(tmp_path: Path, root: Path, codec: str) -> None:
    run(root, tmp_path / "cpu", codec)
    run(root, tmp_path / "gpu", codec, device=GPU)
    assert devices(tmp_path / "cpu") == {None}
    ours, theirs = latents(tmp_path / "cpu"), latents(tmp_path / "gpu")
    assert ours.keys() == theirs.keys() and ours
    for id, found in ours.items():
        np.testing.assert_allclose(theirs[id].astype(float), found.astype(float), atol=1e-3, rtol=2e-3)


def test_going_on_elsewhere_is_told(tmp_path: Path, root: Path, codec: str) -> None:
    out = tmp_path / "out"
    run(root, out, codec, mixing=Mixing(subsets_per_target=1))
    report = run(root, out, codec, device=GPU)
    assert report.work and report.work.copied
    told = "written elsewhere: device was cpu, is cpu, 6 frames of 4 streams a call"
    assert any(told in line for line in report.lines())


class Counting(CausalCodec):
    """Notes the shape of each call."""

    calls: list[tuple[int, ...]]

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls.append(tuple(audio.shape))
        return super().encode_step(audio, state)


def use(monkeypatch: pytest.MonkeyPatch, codec: Codec) -> None:
    """In a build that runs here; the certificate's calls are not its own."""
    work_here(monkeypatch)
    monkeypatch.setattr("prep.example._codec", lambda *_: codec)


def counted(
    root: Path, out: Path, codec: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int]]:
    """A build's calls of the codec, their streams and frames; and it tells how many of these were padding."""
    plain = load_codec(codec)
    counting = Counting(plain.config)
    counting.load_state_dict(plain.state_dict())
    counting.calls = []
    use(monkeypatch, counting.freeze())
    report = run(root, out, codec, device=device)
    calls = [(rows, samples // 4096) for rows, _, samples in counting.calls]
    stored = sum(len(each) * each.shape[1] for each in latents(out).values())
    ran = sum(rows * frames for rows, frames in calls)
    assert report.work and (report.work.ran_frames, report.work.padding_frames) == (ran, ran - stored)
    told = f"; {(ran - stored) / ran:.1%} of the frames that the codec ran were padding"
    assert (told in "\n".join(report.lines())) == (ran > stored)
    return calls


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Of many lengths."""
    root = tmp_path / "songs"
    for number, seconds in enumerate((1.2, 2.9, 3.3, 7.7, 11.1, 9.4, 0.8, 5.0)):
        write_track(root / ("train", "test")[number % 4 // 3] / f"Track{number:05d}", tones(number, 3, seconds))
    return root


@pytest.mark.parametrize("device", [CPU, LONE, replace(LONE, batch_frames=512)], ids=["cpu", "few", "many"])
def test_stream_by_stream_no_frame_is_padding(
    tmp_path: Path, songs: Path, codec: str, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    calls = counted(songs, tmp_path / "out", codec, device, monkeypatch)
    stored = sum(len(each) * each.shape[1] for each in latents(tmp_path / "out").values())
    assert stored == sum(frames for _, frames in calls) > 100
    assert {rows for rows, _ in calls} == {1} and max(frames for _, frames in calls) <= device.batch_frames


def test_streams_of_many_lengths_share_calls(
    tmp_path: Path, songs: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the frame budget, and with at most 5 % padding."""
    calls = counted(songs, tmp_path / "out", codec, GPU, monkeypatch)
    stored = sum(len(each) * each.shape[1] for each in latents(tmp_path / "out").values())
    ran = sum(rows * frames for rows, frames in calls)
    assert stored < ran <= stored / 0.95 and stored > 1000
    assert {rows for rows, _ in calls} == {4} and {frames for _, frames in calls} == {6, 4, 2, 1}


class Hungry(CausalCodec):
    """Finds no memory for the second call."""

    error: Exception
    calls = 0

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return super().encode_step(audio, state)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), PrepError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), PrepError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError),
    ],
)
def test_too_little_memory_names_the_setting(
    tmp_path: Path, root: Path, codec: str, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    asked = load_codec(codec)
    hungry = Hungry(asked.config)
    hungry.load_state_dict(asked.state_dict())
    hungry.error = error
    use(monkeypatch, hungry.freeze())
    message = r"too little memory.*lower --batch-frames, which is 24, or with fewer --workers"
    with pytest.raises(told, match=message if told is PrepError else "illegal memory"):
        run(root, tmp_path / "out", codec, device=GPU)
    assert hungry.calls == 2 and not [each for each in threading.enumerate() if each.name.startswith("ahead")]
    assert not files(tmp_path / "out")


COMMANDS: list[Callable[[Path, Path, str], list[object]]] = [
    lambda root, out, codec: ["build", "--dataset", "slakh", "--root", root, "--out", out, "--set", f"codec={codec}"],
    lambda root, out, codec: ["mixes", out, "--add", 2, "--root", root],
    lambda root, out, codec: ["rebuild", out, "--root", root, "--codec", codec.replace("small-0", "small-1")],
    lambda root, out, codec: ["verify", out, "--repair", "--root", root],
]


def test_each_command_takes_a_device(tmp_path: Path, root: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small_codec(tmp_path, 1)
    out, asked = tmp_path / "out", list[tuple[Any, ...]]()

    def found(device: str, **batch: int) -> Device:
        asked.append((device, batch))
        return GPU

    monkeypatch.setattr("prep.device.device_of", found)
    for words in COMMANDS:
        if words is COMMANDS[-1]:
            next(out.glob(f"generations/{shards.current(out)}/test-*.tar")).unlink()
        there = ["--device", "cuda", "--batch-frames", 12, "--batch-streams", 3]
        command = [*words(root, out, codec), "--workers", "1", *there]
        told = CliRunner().invoke(main, [str(word) for word in command])
        assert told.exit_code == 0, told.output
        assert devices(out) == {"cpu, 6 frames of 4 streams a call"}
    assert asked == [("cuda", {"batch_frames": 12, "batch_streams": 3})] * 4


@pytest.mark.parametrize("words", COMMANDS)
def test_no_gpu_is_told(
    tmp_path: Path,
    words: Callable[[Path, Path, str], list[object]],
    codec: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for more, message in (
        (["--device", "cuda"], "Error: --device cuda: torch"),
        (["--batch-frames", "9"], f"for --device cuda; the cpu takes {STRETCH_FRAMES} frames of one stream a call"),
        (["--batch-streams", "2"], f"for --device cuda; the cpu takes {STRETCH_FRAMES} frames of one stream a call"),
    ):
        told = CliRunner().invoke(main, [*(str(word) for word in words(root, tmp_path / "out", codec)), *more])
        assert told.exit_code == 1 and message in told.output and told.output.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Made GPU")
    assert device_of("cpu") == CPU and CPU.fingerprint == {}
    found = device_of("cuda")
    assert found == Device("cuda", STREAM_FRAMES * BATCH_STREAMS, BATCH_STREAMS, ahead=True)
    assert device_of("cuda", 70, 7) == Device("cuda", 70, 7, ahead=True)
    told = found.fingerprint["device"]
    assert told.startswith("Made GPU, CUDA ") and told.endswith(", 128 frames of 8 streams a call")
    with pytest.raises(PrepError, match="--batch-frames 7 leaves no frame to each of --batch-streams 8"):
        device_of("cuda", 7)


def test_a_worker_looks_at_its_device_first(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Device]()
    monkeypatch.setattr("prep.example.check_rows", lambda codec, device: seen.append(device))
    monkeypatch.setattr("prep.example._codec", example._codec.__wrapped__)
    for device in (CPU, LONE, GPU):
        example._codec(codec, device)
    assert seen == [GPU]


@pytest.fixture
def flags() -> Iterator[list[Callable[[], bool]]]:
    """Of torch: two that shall be off, one that shall be on; as they are by default, and so again afterwards."""
    cublas, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cublas.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cublas.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = True, True, False
    yield [lambda: cublas.allow_tf32, lambda: cudnn.allow_tf32, lambda: cudnn.deterministic]
    cublas.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def test_float32_stays_float32(flags: list[Callable[[], bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    CPU.pin()
    assert [flag() for flag in flags] == [True, True, False] and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    Device("cuda").pin()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert [flag() for flag in flags] == [False, False, True]


def test_what_workers_are_forked_from_leaves_cuda_alone() -> None:
    """A fork cannot use what its parent has begun there."""
    told = "import torch\ndef no(*_): raise SystemExit('CUDA')\ntorch.cuda._lazy_init = torch.cuda.is_available = no\n"
    done = subprocess.run([sys.executable, "-c", f"{told}import prep.draft"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
