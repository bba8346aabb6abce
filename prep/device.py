"""Where codecs run: on this machine's processor, or on its GPU, which several workers may share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from prep.codecs.streams import STRETCH_FRAMES
from prep.errors import PrepError

# Frames of a stream that a call of the codec takes: part of an encoding's identity, since float sums depend on shapes.
# The processor takes STRETCH_FRAMES; a GPU has more to do at a time and a memory of its own, so there it is a setting.
# A piece of so much stereo audio has 17 MB, and the build holds as much of every stem that is too long for its memory.
BATCH_FRAMES = 512

# what CUDA's libraries say when they find no memory, beside torch's own error
_NO_MEMORY = ("out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Device:
    """A call of the codec takes `batch_frames` of one stream; a last call takes what is left, up to the end of its
    frame. No call holds two streams: so no stream's numbers hang on which others are encoded, and none is padded to
    another's length. `ahead`: what is encoded next is read and mixed in a thread meanwhile."""

    name: str = "cpu"
    batch_frames: int = STRETCH_FRAMES
    ahead: bool = False

    @property
    def fingerprint(self) -> dict[str, str]:
        """What has to be equal for equal bytes, beside the machine and its libraries. Nothing, where processors do as
        they always did."""
        if self.name == "cpu" and self.batch_frames == STRETCH_FRAMES:
            return {}
        what = "cpu" if self.name == "cpu" else f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        return {"device": f"{what}, {self.batch_frames} frames a call"}

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


def device_of(name: str, batch_frames: int | None = None) -> Device:
    """As it is asked for on the command line. Raises PrepError where it cannot be had."""
    if name == "cpu":
        if batch_frames is not None:
            raise PrepError(f"--batch-frames is for --device cuda; the cpu takes {STRETCH_FRAMES} frames a call.")
        return CPU
    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise PrepError(
            f"--device {name}: torch {torch.__version__} finds no GPU (it {built}; nvidia-smi tells whether the driver "
            "finds one). Without one: --device cpu."
        )
    return Device(name, batch_frames or BATCH_FRAMES, ahead=True)
