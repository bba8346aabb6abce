"""How much of what a GPU's calls of the codec take is padding: `python -m tests.bench.padding`.

Made corpora of songs and clips of many lengths go through the calls of a build, bundle by bundle, with a codec that
computes nothing. A build on a GPU tells its own share at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from prep import encode
from prep.codecs import CodecIdentity, State
from prep.codecs.streams import SteppedEncoder
from prep.device import BATCH_STREAMS, STREAM_FRAMES, Device
from prep.draft import BUNDLE_CALLS
from prep.encode import Calls, Stream

HOP = 8  # stands for 4096
# name: multitracks, fewest and most streams of each, shortest and longest in seconds
CORPORA = {
    "songs of a band, as Slakh's": (200, 12, 40, 120, 420),
    "songs of four stems, as MUSDB18's": (150, 8, 12, 90, 400),
    "songs of two stems": (300, 2, 2, 60, 300),
    "clips of 10 to 30 s": (3000, 5, 12, 10, 30),
    "clips of 2 to 10 s": (6000, 5, 12, 2, 10),
}
FRAME_RATE = 44100 / 4096


class Idle(SteppedEncoder):
    identity = CodecIdentity("idle", "", "", "float32", 44100, 1, HOP, 1, causal=True, delay_samples=0)

    def __init__(self) -> None:
        self.calls = 0

    def encode_state(self, batch: int) -> State:
        return (torch.zeros(batch, 1),)

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls += 1
        return audio[:, :, ::HOP].transpose(1, 2), state

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    decode_state, decode_step = encode_state, encode_step


def padding(songs: list[tuple[int, int]], device: Device) -> tuple[float, float]:
    """Of songs with so many streams of so many frames each: the share of padding, and the mean frames of a call."""
    ran, own, codec = 0, 0, Idle()
    for bundle in bundles(songs, BUNDLE_CALLS * device.batch_frames):
        streams, given = list[Stream](), Calls(codec, device)
        for count, frames in bundle:
            some = [Stream(np.zeros((frames, 1), np.float16)) for _ in range(count)]
            audio = np.zeros((1, frames * HOP), np.float32)
            for start in range(0, frames, device.stretch_frames):
                for stream in some:
                    given.add(stream, audio[:, start * HOP : (start + device.stretch_frames) * HOP])
            streams += some
        given.end()
        ran += sum(stream.ran for stream in streams)
        own += sum(len(stream.latents) for stream in streams)
    return 1 - own / ran, ran / codec.calls


def bundles(songs: list[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    held: list[tuple[int, int]] = []
    for song in songs:
        held.append(song)
        if sum(count * frames for count, frames in held) >= most:
            yield held
            held = []
    if held:
        yield held


def main() -> None:
    encode.WAITING_BYTES = encode.WAITING_BYTES * HOP // 4096
    rng = np.random.default_rng(0)
    for name, (songs, fewest, most, shortest, longest) in CORPORA.items():
        counts = rng.integers(fewest, most + 1, songs)
        lengths = rng.uniform(shortest, longest, songs) * FRAME_RATE
        drawn = [(int(count), int(length)) for count, length in zip(counts, lengths, strict=True)]
        share, frames = padding(drawn, Device("cpu", STREAM_FRAMES * BATCH_STREAMS, BATCH_STREAMS))
        print(f"{name:<36}{share:6.1%} padding, {frames:5.0f} frames a call")


if __name__ == "__main__":
    main()
