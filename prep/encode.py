"""Streams to latents, stretch by stretch: the stems' audio is mixed, and the codec carries its state along."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from prep.codecs import Codec
from prep.codecs.streams import EncodeStream
from prep.device import CPU, Device
from prep.spool import Audio, Spool
from prep.stages.mixing import Members, mix_audio

# pieces that wait for the encoder, where they are made ahead of it
AHEAD = 2

Piece = tuple[int, Audio]  # a stream's number, and its next stretch: (channels, samples)
Pieces = Generator[Piece, None, None]
Lap = Callable[[str], None]


def mixed(
    wanted: Mapping[int, tuple[Members, float]], gains_db: list[float], spool: Spool, length: int, lap: Lap
) -> Pieces:
    """The streams in `wanted` side by side, in stretches of `length`. Each has its members and, of a mix, the gain on
    their sum. Channels that are alike are one, repeated as a view.

    `lap` is told the name of each stage that has ended."""
    used = (i for members, _ in wanted.values() for i in members)
    for stems in spool.stretches(used, length):
        single = {i: audio[:1] for i, audio in stems.items() if audio.strides[0] == 0}
        lap("read")
        for number, (members, gain) in wanted.items():
            audio = mix_audio(single if single.keys() >= set(members) else stems, gains_db, members)
            if len(members) > 1:
                audio *= np.float32(10 ** (gain / 20))
            lap("mix")
            yield number, np.broadcast_to(audio, stems[members[0]].shape)


def ahead(pieces: Pieces, skip: Callable[[], None]) -> Pieces:
    """The same, each made in a thread while those before it are used; at most AHEAD of them wait.

    What is raised there is raised here. `skip` is called by either thread where it may have waited for the other. To be
    closed where it may be left early: then the thread has ended, and `pieces` may be closed."""

    def make() -> Piece | None:
        skip()
        return next(pieces, None)

    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting = deque(thread.submit(make) for _ in range(AHEAD))
        try:
            while piece := waiting.popleft().result():
                waiting.append(thread.submit(make))
                skip()
                yield piece
        finally:
            thread.shutdown(cancel_futures=True)


def encode(
    codec: Codec,
    pieces: Iterable[Piece],
    wanted: Collection[int],
    latents: NDArray[np.float16],
    lap: Lap,
    device: Device = CPU,
) -> None:
    """Fills in `latents` (streams, frames, dim) of the `wanted` streams; pieces of others only pass by.

    Pieces are of the device's `batch_frames`, but for a stream's last one. What a codec that hears the future gives for
    a piece comes when it has heard that. Raises PrepError where the device, on which the codec is, has too little
    memory."""
    streams = {number: EncodeStream(codec) for number in wanted}
    heard, done, hop = Counter[int](), Counter[int](), codec.identity.hop
    for number, audio in pieces:
        if number not in streams:
            continue
        padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % hop)))
        heard[number] += padded.shape[1] // hop
        with device.memory(), torch.inference_mode():
            there = torch.from_numpy(padded[None]).to(device.name)
            found = [out[0].cpu().numpy() for out in streams[number].push(there, heard[number] == latents.shape[1])]
        for out in found:
            with np.errstate(over="ignore"):  # infinity is looked for when all is done
                latents[number, done[number] : done[number] + len(out)] = out
            done[number] += len(out)
        lap("encode")
