"""Opus, for the ear: what a bit rate sounds like. Through the ffmpeg binary, where there is one with libopus."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np
import soxr
import torch
from torch import Tensor

OPUS_RATE = 48000  # it knows no other


@cache
def missing() -> str:
    """Why Opus cannot be had here; "" where it can."""
    if not shutil.which("ffmpeg"):
        return "no ffmpeg here"
    encoders = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return "" if "libopus" in encoders.stdout else "ffmpeg without libopus"


def opus_round_trip(audio: Tensor, rate: int, kbits: int) -> Tensor:
    """(2, samples) -> (2, samples)."""
    pcm = soxr.resample(audio.T.numpy(), rate, OPUS_RATE).astype("<f4").tobytes()
    raw = ["-f", "f32le", "-ar", str(OPUS_RATE), "-ac", "2"]
    coded = _ffmpeg([*raw, "-i", "-", "-c:a", "libopus", "-b:a", f"{kbits}k", "-f", "ogg", "-"], pcm)
    decoded = np.frombuffer(_ffmpeg(["-c:a", "libopus", "-i", "-", *raw, "-"], coded), "<f4").reshape(-1, 2)
    back = soxr.resample(decoded, OPUS_RATE, rate).T[:, : audio.shape[1]]
    return torch.from_numpy(np.pad(back, ((0, 0), (0, audio.shape[1] - back.shape[1]))))


def _ffmpeg(arguments: list[str], given: bytes) -> bytes:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout
