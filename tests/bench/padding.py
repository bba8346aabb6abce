"""How much of what a GPU's calls of the codec take is padding: `python -m tests.bench.padding`.

Made corpora of songs and clips of many lengths are planned and go through the calls of a build, bundle by bundle, with
a codec that computes nothing. A build on a GPU tells its own share at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from prep import encode
from prep.codecs import CodecIdentity, State
from prep.codecs.streams import SteppedEncoder
from prep.config import PrepConfig
from prep.device import BATCH_STREAMS, STREAM_FRAMES, Device
from prep.draft import BUNDLE_CALLS
from prep.encode import Calls, Stream
from prep.job import Job, bundled
from prep.plan import PlanRow, make_plan
from tests.prep.test_plan import BYTES, song

HOP, LESS = 4096, 512  # samples are taken for so many, to have less of them
# name: multitracks, fewest and most stems of each, shortest and longest in seconds
CORPORA = {
    "songs of a band, as Slakh's": (200, 5, 14, 120, 420),
    "songs of four stems, as MUSDB18's": (150, 4, 4, 90, 400),
    "songs of two stems": (300, 2, 2, 60, 300),
    "clips of 10 to 30 s": (3000, 3, 6, 10, 30),
    "clips of 2 to 10 s": (6000, 3, 6, 2, 10),
}
RATE = 44100


class Idle(SteppedEncoder):
    identity = CodecIdentity("idle", "", "", "float32", RATE, 1, HOP // LESS, 1, causal=True, delay_samples=0)

    def __init__(self) -> None:
        self.calls = 0

    def encode_state(self, batch: int) -> State:
        return (torch.zeros(batch, 1),)

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls += 1
        return audio[:, :, :: self.identity.hop].transpose(1, 2), state


@cache
def planned(stems: int) -> PlanRow:
    return make_plan(song("a", stems), PrepConfig(), BYTES).rows[0]


def padding(jobs: Iterator[Job], device: Device) -> tuple[float, float]:
    """The share of padding, and the mean frames of a call."""
    ran, own, codec = 0, 0, Idle()
    for bundle in bundled(jobs, HOP, BUNDLE_CALLS * device.batch_frames):
        calls, streams = Calls(codec, device), list[Stream]()
        for job in bundle.jobs:
            audio = np.zeros((1, job.row.samples // LESS), np.float32)
            some = [Stream(np.zeros((job.frames(HOP, [number]), 1), np.float16)) for number in job.missing]
            stretch = device.stretch_frames * codec.identity.hop
            for start in range(0, audio.shape[1], stretch):
                for stream in some:
                    calls.add(stream, audio[:, start : start + stretch])
            streams += some
        calls.end()
        ran += sum(stream.ran for stream in streams)
        own += sum(len(stream.latents) for stream in streams)
    return 1 - own / ran, ran / codec.calls


def main() -> None:
    encode.WAITING_BYTES //= LESS
    rng = np.random.default_rng(0)
    for name, (songs, fewest, most, shortest, longest) in CORPORA.items():
        counts, seconds = rng.integers(fewest, most + 1, songs), rng.uniform(shortest, longest, songs)
        # whole frames
        rows = (
            replace(planned(int(count)), samples=int(length * RATE / HOP) * HOP)
            for count, length in zip(counts, seconds, strict=True)
        )
        share, frames = padding(map(Job, rows), Device("cpu", STREAM_FRAMES * BATCH_STREAMS, BATCH_STREAMS))
        print(f"{name:<36}{share:6.1%} padding, {frames:5.0f} frames a call")


if __name__ == "__main__":
    main()
