"""From shards on disk to a player that follows the mix, on latents whose target is a known function of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import Example
from tests.train.made import DIM, allowed, example, small, write
from train import checkpoint
from train.checkpoint import Checkpoint
from train.config import Config
from train.loop import fit

FRAMES, UNSEEN = 200, 24
STEPS = 200


def turned(mix: np.ndarray) -> np.ndarray:
    """What the bass plays: at each frame what all the others did two frames before, its channels turned by one place
    and every second one upside down."""
    late = np.concatenate([np.zeros_like(mix[:2]), mix[:-2]])
    return np.roll(late, 1, axis=1) * np.array([1, -1, 1, -1])


def song(seed: int) -> Example:
    """A piano, drums, a bass, and the mix of the first two, the one that the bass may hear."""
    piano, drums = np.random.default_rng(seed).normal(size=(2, FRAMES, DIM))
    made = example(f"song{seed}", stems=3, members=((0, 2),), frames=FRAMES)
    mix = (piano + drums).astype(np.float16)
    return replace(made, stems=np.stack([piano, turned(mix), drums]).astype(np.float16), mixes=mix[None])


def errors(saved: Checkpoint) -> tuple[float, float]:
    """Streamed over mixes never trained on: mean square distance to their targets, and to those of the next ones."""
    mixes = np.random.default_rng(10**6).normal(size=(UNSEEN, 40, DIM)) * 2**0.5
    targets = torch.tensor(np.stack([turned(mix) for mix in mixes]))
    heard, wanted = saved.mix_scale.normalise(torch.tensor(mixes)), saved.target_scale.normalise(targets)
    noise = torch.randn(UNSEEN, 40, saved.config.generator.noise_dim, generator=torch.Generator().manual_seed(0))
    player, bass = saved.player(), torch.full((UNSEEN,), saved.classes.index("Bass"))
    state, frames = player.init_state(UNSEEN), []
    for t in range(40):
        frame, state = player.step(heard[:, t : t + 1], noise[:, t : t + 1], bass, state)
        frames.append(frame)
    played = torch.cat(frames, dim=1)[:, 1:-1]  # what is played at t sounds at t + 1; at first nothing was heard
    wanted = wanted[:, 2:]
    return (played - wanted).square().mean().item(), (played - wanted.roll(1, dims=0)).square().mean().item()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [[0.0] * size + [1.0] for size in range(7)]  # mixes of all the others
    law = allowed(rows, exclude_targets=["Piano", "Percussive"])
    return write(tmp_path / "out", [song(seed) for seed in range(8)], pairs=law)


def config(steps: int) -> Config:
    return small(
        batches={"crop_frames": 8, "batch_size": 32},
        generator={"width": 32, "context_frames": 8},
        discriminator={"width": 32},
        adagp={"gamma": 0.05},
        optimiser={"learning_rate": 2e-3, "warmup_steps": 10, "penalty_every": 4, "ema_half_life_steps": 10.0},
        loop={"steps": steps, "checkpoint_every": steps},
    )


def test_the_accompaniment_comes_to_follow_the_mix(data: Path, tmp_path: Path) -> None:
    fit(config(1), data, tmp_path / "untrained")
    right, shuffled = errors(checkpoint.load(tmp_path / "untrained"))
    assert right > 0.9 * shuffled
    fit(config(STEPS), data, tmp_path / "run")
    right, shuffled = errors(checkpoint.load(tmp_path / "run"))
    assert right < 0.2 * shuffled  # 0.07 to 0.09 with five seeds
    assert shuffled > 2.0  # it plays out loud: silence would be as far from all of them, and nearer
