"""The causal codec on one CPU core, or on a GPU: `python -m tests.bench.codec [--device cuda]`.

Prints how many times faster than real time whole audio is encoded, and how much of a frame a streaming step takes to
decode it: medians of processor time, and of wall time, which another load on the machine lengthens. On a GPU: hours of
audio encoded and decoded a minute, by the frames of a call, of wall time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from prep.codecs import CausalCodec, load_codec
from prep.probes import noise

SECONDS = 20
REPEATS = 5
STEPS = 200
CALLS = (64, 256, 1024, 4096, 16384)  # frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    codec, device = load_codec(), parser.parse_args().device
    assert isinstance(codec, CausalCodec)
    if device == "cuda":
        on_a_gpu(codec.to(device), device)
    else:
        on_a_core(codec)


@torch.inference_mode()
def on_a_gpu(codec: CausalCodec, device: str, calls: tuple[int, ...] = CALLS) -> None:
    identity = codec.identity
    for frames in calls:
        audio = noise(identity, frames * identity.hop, "bench")[None].to(device)
        latents, _ = codec.encode_step(audio, codec.encode_state(1))
        steps: dict[str, Callable[[], object]] = {
            "encoded": partial(codec.encode_step, audio, codec.encode_state(1)),
            "decoded": partial(codec.decode_step, latents, codec.decode_state(1)),
        }
        told = []
        for name, step in steps.items():
            step()
            wall = statistics.median(timed(step, device)[1] for _ in range(REPEATS))
            told.append(f"{frames / identity.frame_rate / wall / 60:.2f} hours a minute {name}")
        print(f"{frames:6d} frames a call: {', '.join(told)}")


@torch.inference_mode()
def on_a_core(codec: CausalCodec) -> None:
    torch.set_num_threads(1)
    identity = codec.identity
    audio = noise(identity, SECONDS * identity.sample_rate, "bench")[None]
    latents = codec.encode(audio)
    core, wall = zip(*(timed(lambda: codec.encode(audio)) for _ in range(REPEATS)), strict=True)
    print(f"encode: {SECONDS / statistics.median(core):.0f} times real time", end="")
    print(f" (wall: {SECONDS / statistics.median(wall):.0f})")
    state, times = codec.decode_state(1), []
    for step in range(STEPS):
        frame = latents[:, step % latents.shape[1]][:, None]
        times.append(timed(partial(codec.decode_step, frame, state)))
        state = codec.decode_step(frame, state)[1]
    core, wall = (1000 * statistics.median(each) for each in zip(*times, strict=True))
    frame_ms = 1000 / identity.frame_rate
    print(f"streaming decode: {core:.1f} ms a step of {frame_ms:.1f} ms, {core / frame_ms:.0%} (wall: {wall:.1f} ms)")


def timed(run: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Seconds of processor and of wall time."""
    core, wall = time.process_time(), time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() - core, time.perf_counter() - wall


if __name__ == "__main__":
    main()
