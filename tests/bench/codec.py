"""The causal codec on one CPU core: `python -m tests.bench.codec`.

Prints how many times faster than real time whole audio is encoded, and how much of a frame a streaming step takes to
decode it: medians of processor time, and of wall time, which another load on the machine lengthens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from prep.codecs import load_codec
from prep.probes import noise

SECONDS = 20
REPEATS = 5
STEPS = 200


def main() -> None:
    torch.set_num_threads(1)
    codec = load_codec()
    identity = codec.identity
    audio = noise(identity, SECONDS * identity.sample_rate, "bench")[None]
    with torch.inference_mode():
        latents = codec.encode(audio)
        core, wall = zip(*(timed(lambda: codec.encode(audio)) for _ in range(REPEATS)), strict=True)
        print(f"encode: {SECONDS / statistics.median(core):.0f} times real time", end="")
        print(f" (wall: {SECONDS / statistics.median(wall):.0f})")
        state, times = codec.decode_state(1), []
        for step in range(STEPS):
            frame = latents[:, step % latents.shape[1]][:, None]
            times.append(timed(lambda frame=frame, state=state: codec.decode_step(frame, state)))
            state = codec.decode_step(frame, state)[1]
    core, wall = (1000 * statistics.median(each) for each in zip(*times, strict=True))
    frame_ms = 1000 / identity.frame_rate
    print(f"streaming decode: {core:.1f} ms a step of {frame_ms:.1f} ms, {core / frame_ms:.0%} (wall: {wall:.1f} ms)")


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of processor and of wall time."""
    core, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - core, time.perf_counter() - wall


if __name__ == "__main__":
    main()
