"""Whether the player keeps up, and for how long: `python -m tests.bench.live --minutes 30`.

A generator of random weights and the shipped codec, in one process on `--threads` threads, play along with a made file
of decaying tones, as `train play` does. Printed are the parameters, the latency of each part, the real-time factor all
in, and of the first and the last minute the latency and the resident memory at its end. Where other work runs beside
it, processor time on one thread is the figure to go by.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

from prep.codecs import load_codec
from tests.bench.memory import resident_bytes
from tests.prep.made import tone
from train import config
from train.batches import Scale
from train.files import measure
from train.generator import Generator
from train.live import Latency, Performance, Player, settle

# width, blocks, heads: so many million parameters
SIZES = {"1": (128, 3, 4), "45": (512, 14, 4), "90": (640, 18, 5)}
SECONDS = 60


def generator(size: str, dim: int) -> Generator:
    """Of random weights, none of them zero, so that no sum is spared."""
    width, blocks, heads = SIZES[size]
    torch.manual_seed(0)
    made = Generator(config.Generator(width=width, blocks=blocks, heads=heads), dim, 18)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return made.eval().requires_grad_(False)


def write_mix(path: Path, minutes: int) -> None:
    """Stereo, at 44.1 kHz: a second of tone, another each second of ten, over and over."""
    seconds = [np.repeat(tone(number, 1.0)[:, None], 2, axis=1) for number in range(10)]
    with soundfile.SoundFile(path, "w", 44100, channels=2, subtype="PCM_16") as file:
        for second in range(60 * minutes):
            file.write(seconds[second % len(seconds)])


def perform(performance: Performance, mix: Path, out: Path) -> Iterator[int]:
    """The resident bytes after each minute of the mix."""
    identity = performance.player.identity
    _, blocks = measure(mix, identity).fitted(identity)
    written, told = 0, SECONDS
    with soundfile.SoundFile(out, "w", identity.sample_rate, identity.channels, subtype="PCM_16") as file:
        for audio in performance.accompany(blocks):
            file.write(audio.T)
            written += audio.shape[1]
            if written >= told * identity.sample_rate:
                told += SECONDS
                yield resident_bytes(os.getpid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, choices=range(1, 1000), metavar="N", default=30)
    parser.add_argument("--parameters", choices=SIZES, default="45", help="of the generator, in millions")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    codec = load_codec()
    network, nothing = generator(chosen.parameters, codec.identity.dim), Scale(torch.tensor(0.0), torch.tensor(1.0))
    player = Player(codec, codec.identity, settle(network), nothing, nothing, instrument=0, anticipation_frames=1)
    with tempfile.TemporaryDirectory() as folder:
        mix = Path(folder) / "mix.wav"
        write_mix(mix, chosen.minutes)
        performance, began = Performance(player), time.process_time()
        resident = list(perform(performance, mix, Path(folder) / "out.wav"))
    cpu_s = time.process_time() - began
    latency, count = performance.latency, sum(parameter.numel() for parameter in network.parameters())
    print(f"generator {count / 1e6:.1f} M parameters, {chosen.threads} threads, {chosen.minutes} minutes of music")
    print(latency.table())
    a_frame_s = cpu_s / len(latency.seconds)
    print(
        f"processor time, files and all: {1000 * a_frame_s:.1f} ms a frame; "
        f"{latency.hop_s / a_frame_s:.2f} times as fast as the music on one core that does nothing else"
    )
    a_minute = round(SECONDS / latency.hop_s)
    for name, part, held in (
        ("first", latency.seconds[:a_minute], resident[0]),
        ("last", latency.seconds[-a_minute:], resident[-1]),
    ):
        all_ms = 1000 * part.sum(axis=1)
        print(
            f"{name} minute: {all_ms.mean():.1f} ms a frame, median {np.median(all_ms):.1f}, p99 "
            f"{np.percentile(all_ms, 99):.1f}; real-time factor {Latency(part, latency.hop_s).real_time_factor:.2f}; "
            f"{held / 1e6:.0f} MB resident at its end"
        )


if __name__ == "__main__":
    main()
