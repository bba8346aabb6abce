"""Streams to latents, stretch by stretch: the stems' audio is mixed, and the codec carries its state along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from prep.codecs import Codec, State
from prep.spool import Spool
from prep.stages.mixing import mix_audio

# frames a call of the codec: part of an encoding's identity, since float sums depend on shapes
STRETCH_FRAMES = 64


def encode(
    codec: Codec,
    wanted: dict[int, tuple[tuple[int, ...], float]],
    gains_db: list[float],
    spool: Spool,
    latents: NDArray[np.float16],
    lap: Callable[[str], None],
) -> None:
    """Fills in `latents` (streams, frames, dim). `wanted`: a stream's members and, of a mix, the gain on their sum.

    `lap` is told the name of each stage that has ended."""
    states: dict[int, State] = {number: codec.encode_state(1) for number in wanted}
    at, used = 0, (i for members, _ in wanted.values() for i in members)
    for stems in spool.stretches(used, STRETCH_FRAMES * codec.identity.hop):
        lap("read")
        for number, (members, gain) in wanted.items():
            audio = mix_audio(stems, gains_db, members)
            if len(members) > 1:
                audio *= np.float32(10 ** (gain / 20))
            lap("mix")
            out, states[number] = _encode_stretch(codec, audio, states[number])
            with np.errstate(over="ignore"):  # infinity is looked for when all is done
                latents[number, at : at + len(out)] = out
            lap("encode")
        at += STRETCH_FRAMES


def _encode_stretch(codec: Codec, audio: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % codec.identity.hop)))
    with torch.inference_mode():
        out, state = codec.encode_step(torch.from_numpy(padded[None]), state)
    # a state may be a view that keeps the whole stretch alive
    return out[0].numpy(), tuple(part.clone() for part in state)
