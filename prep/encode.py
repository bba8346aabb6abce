"""Streams to latents, stretch by stretch: the stems' audio is mixed, and the codec carries its state along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from prep.codecs import Codec, State
from prep.spool import Audio, Spool
from prep.stages.mixing import Members, mix_audio

# frames a call of the codec: part of an encoding's identity, since float sums depend on shapes
STRETCH_FRAMES = 64

Piece = tuple[int, Audio]  # a stream's number, and its next stretch: (channels, samples)
Lap = Callable[[str], None]


def mixed(
    wanted: Mapping[int, tuple[Members, float]], gains_db: list[float], spool: Spool, length: int, lap: Lap
) -> Iterator[Piece]:
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


def encode(
    codec: Codec, pieces: Iterable[Piece], wanted: Collection[int], latents: NDArray[np.float16], lap: Lap
) -> None:
    """Fills in `latents` (streams, frames, dim) of the `wanted` streams; pieces of others only pass by.

    Pieces are of STRETCH_FRAMES, but for a stream's last one."""
    states: dict[int, State] = {number: codec.encode_state(1) for number in wanted}
    at: Counter[int] = Counter()
    for number, audio in pieces:
        if number not in states:
            continue
        out, states[number] = _encode_stretch(codec, audio, states[number])
        with np.errstate(over="ignore"):  # infinity is looked for when all is done
            latents[number, at[number] : at[number] + len(out)] = out
        at[number] += len(out)
        lap("encode")


def _encode_stretch(codec: Codec, audio: Audio, state: State) -> tuple[NDArray[np.float32], State]:
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % codec.identity.hop)))
    with torch.inference_mode():
        out, state = codec.encode_step(torch.from_numpy(padded[None]), state)
    # a state may be a view that keeps the whole stretch alive
    return out[0].numpy(), tuple(part.clone() for part in state)
