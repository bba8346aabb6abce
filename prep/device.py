"""Where codecs run: on this machine's processor, or on its GPU, which several workers may share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from prep.codecs.streams import STRETCH_FRAMES
from prep.errors import PrepError

# What a call of the codec takes is part of an encoding's identity, since float sums depend on shapes. The processor
# takes STRETCH_FRAMES of one stream; a GPU has more to do at a time and a memory of its own, so there both are
# settings. So much stereo audio has 4 MB a stream; the build holds as much of every stem that is too long for its
# memory.
STREAM_FRAMES = 128
BATCH_STREAMS = 8

# what CUDA's libraries say when they find no memory, beside torch's own error
_NO_MEMORY = ("out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Device:
    """A call of the codec takes up to `batch_frames`: equally many of each of `batch_streams` streams (prep.encode
    tells which). `ahead`: what is encoded next is read and mixed in a thread meanwhile."""

    name: str = "cpu"
    batch_frames: int = STRETCH_FRAMES
    batch_streams: int = 1
    ahead: bool = False

    @property
    def stretch_frames(self) -> int:
        """Of each stream in a call."""
        return self.batch_frames // self.batch_streams

    @property
    def fingerprint(self) -> dict[str, str]:
        """What has to be equal for equal bytes, beside the machine and its libraries. Nothing, where processors do as
        they always did."""
        if self.name == "cpu" and (self.stretch_frames, self.batch_streams) == (STRETCH_FRAMES, 1):
            return {}
        what = "cpu" if self.name == "cpu" else f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        return {"device": f"{what}, {self.stretch_frames} frames of {self.batch_streams} streams a call"}

    def pin(self) -> None:
        """In a worker: equal calls give equal numbers, and float32 is not cut to TensorFloat-32."""
        if self.name != "cpu":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
            # read when cuBLAS is first used: without it cuDNN's LSTM may sum in another order the next time
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Where the device has too little memory for the block: PrepError, which names the setting."""
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not isinstance(error, torch.OutOfMemoryError) and not any(said in str(error) for said in _NO_MEMORY):
                raise
            raise PrepError(
                f"--device {self.name} has too little memory: its workers share it. Run again with a lower "
                f"--batch-frames, which is {self.batch_frames}, or with fewer --workers; what is finished stays."
            ) from error


CPU = Device()


def device_of(name: str, batch_frames: int | None = None, batch_streams: int | None = None) -> Device:
    """As it is asked for on the command line. Raises PrepError where it cannot be had."""
    if name == "cpu":
        if batch_frames is not None or batch_streams is not None:
            raise PrepError(
                "--batch-frames and --batch-streams are for --device cuda; "
                f"the cpu takes {STRETCH_FRAMES} frames of one stream a call."
            )
        return CPU
    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise PrepError(
            f"--device {name}: torch {torch.__version__} finds no GPU (it {built}; nvidia-smi tells whether the driver "
            "finds one). Without one: --device cpu."
        )
    streams = batch_streams or BATCH_STREAMS
    device = Device(name, batch_frames or STREAM_FRAMES * streams, streams, ahead=True)
    if not device.stretch_frames:
        raise PrepError(
            f"--batch-frames {device.batch_frames} leaves no frame to each of --batch-streams {device.batch_streams}. "
            "Give more frames, or fewer streams."
        )
    return device
