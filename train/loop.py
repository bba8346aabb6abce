"""The GAN loop: a discriminator step, a generator step, gamma's step; curves, checkpoints, and back from them.

A step takes two batches, one a phase, as R3GAN does. Nothing in it draws by chance: noise comes with the batch.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

import shards
from train import checkpoint
from train.adagp import next_gamma
from train.batches import Batch, Draw, Pairs
from train.config import Config
from train.curves import Curves
from train.discriminator import Discriminator
from train.errors import DataError, DivergedError, RunError
from train.generator import Generator
from train.losses import discriminator_loss, generator_loss, gradient_penalty, penalty_weights


@dataclass
class Game:
    """The two players, the average of the first that is to play, their optimisers, and the penalty's weight."""

    generator: Generator
    average: Generator
    discriminator: Discriminator
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    gamma: float

    @classmethod
    def new(cls, config: Config, dim: int, classes: int, device: torch.device) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            generator = Generator(config.generator, dim, classes).to(device)
            discriminator = Discriminator(config.discriminator, dim, classes, config.batches.crop_frames).to(device)
        adams = [
            torch.optim.Adam(network.parameters(), config.optimiser.learning_rate, config.optimiser.betas)
            for network in (generator, discriminator)
        ]
        return cls(generator, deepcopy(generator), discriminator, adams[0], adams[1], config.adagp.gamma)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        self.generator.load_state_dict(saved.generator)
        self.average.load_state_dict(saved.average)
        self.discriminator.load_state_dict(saved.discriminator)
        self.generator_optimiser.load_state_dict(saved.generator_optimiser)
        self.discriminator_optimiser.load_state_dict(saved.discriminator_optimiser)
        self.gamma = saved.gamma


def train_step(game: Game, first: Batch, second: Batch, step: int, config: Config) -> dict[str, float]:
    """One step of both players, in place; what it measured. Raises DivergedError before a bad number is applied."""
    rate = config.optimiser.learning_rate * min(1.0, (step + 1) / max(1, config.optimiser.warmup_steps))
    for optimiser in (game.generator_optimiser, game.discriminator_optimiser):
        for group in optimiser.param_groups:
            group["lr"] = rate
    gamma = game.gamma
    measured = discriminator_step(game, first, step, config) | {"gamma": gamma, "learning_rate": rate}
    game.gamma = next_gamma(gamma, measured["advantage"], config.adagp)
    measured |= generator_step(game, second, step, config)
    follow(game, config.optimiser.ema_half_life_steps)
    return measured


@torch.no_grad()
def follow(game: Game, half_life_steps: float) -> None:
    """average <- beta * average + (1 - beta) * G with beta = 0.5 ** (1 / half-life); without half-life it is G."""
    share = 1 - 0.5 ** (1 / half_life_steps) if half_life_steps else 1.0
    for average, current in zip(game.average.parameters(), game.generator.parameters(), strict=True):
        average.lerp_(current, share)


def discriminator_step(game: Game, batch: Batch, step: int, config: Config) -> dict[str, float]:
    """L_D = mean softplus(-(D(x, c) - D(x', c))) + gamma / 2 * (R1 + R2), the penalties lazily."""
    weights = penalty_weights(step, config.optimiser.penalty_every)
    with torch.no_grad():
        fake = game.generator(batch.heard, batch.noise, batch.generator_class)
    sides = {"r1": batch.target.clone().requires_grad_("r1" in weights), "r2": fake.requires_grad_("r2" in weights)}
    beside = batch.beside(config.discriminator.alignment)
    logits = {name: game.discriminator(x, beside, batch.discriminator_class) for name, x in sides.items()}
    real, fake_logits = logits["r1"], logits["r2"]
    relativistic = discriminator_loss(real, fake_logits)
    penalties = {name: gradient_penalty(logits[name], sides[name]) for name in weights}
    loss = relativistic + sum(game.gamma / 2 * weights[name] * penalty for name, penalty in penalties.items())
    gap = (real - fake_logits).detach()
    norm = _descend(game.discriminator, game.discriminator_optimiser, loss, "discriminator", step)
    return {
        "loss_d": relativistic.item(),
        "advantage": gap.mean().item(),
        "sign": gap.sign().mean().item(),
        **{name: penalty.item() for name, penalty in penalties.items()},
        "grad_norm_d": norm,
    }


def generator_step(game: Game, batch: Batch, step: int, config: Config) -> dict[str, float]:
    """L_G = mean softplus(-(D(x', c) - D(x, c)))."""
    game.discriminator.requires_grad_(False)
    fake = game.generator(batch.heard, batch.noise, batch.generator_class)
    beside = batch.beside(config.discriminator.alignment)
    real = game.discriminator(batch.target, beside, batch.discriminator_class)
    loss = generator_loss(real, game.discriminator(fake, beside, batch.discriminator_class))
    norm = _descend(game.generator, game.generator_optimiser, loss, "generator", step)
    game.discriminator.requires_grad_(True)
    return {"loss_g": loss.item(), "grad_norm_g": norm}


def _descend(network: nn.Module, optimiser: torch.optim.Adam, loss: Tensor, whose: str, step: int) -> float:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]).item()
    if not math.isfinite(loss.item()) or not math.isfinite(norm):
        raise DivergedError(f"the {whose}'s loss is {loss.item()}, its gradient's norm {norm}, at step {step + 1}")
    optimiser.step()
    return norm


def fit(config: Config, data: Path, run: Path, device: str = "cpu", say: Callable[[str], None] = print) -> int:
    """Train in the folder `run` until `loop.steps`, going on from its checkpoint; the steps finished.

    Ctrl-C finishes the step, writes a checkpoint and returns. Raises TrainError, and shards' error for the dataset.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("--device is cuda, and torch finds no CUDA GPU here; use --device cpu")
    dataset = shards.open(data)
    pairs = Pairs.of(dataset, config)
    batch_size = config.batches.batch_size
    if len(pairs) < 2 * batch_size:
        raise DataError(
            f"the train split holds {len(pairs)} pairs, and a step takes 2 * batches.batch_size = {2 * batch_size}; "
            f"lower batches.batch_size to at most {len(pairs) // 2}, or build from more songs"
        )
    saved = checkpoint.resume(run, config, dataset.codec, dataset.index["generation"])
    if saved and saved.step >= config.loop.steps:
        say(f"{run} is finished: {saved.step} steps. To go on, raise loop.steps (--set loop.steps=N).")
        return saved.step
    game = Game.new(config, dataset.codec["dim"], len(dataset.classes), torch.device(device))

    def collate(draws: list[Draw]) -> tuple[Batch, Batch]:
        return pairs.collate(draws[:batch_size]), pairs.collate(draws[batch_size:])

    loader = shards.Loader(pairs.order(), 2 * batch_size, pairs.draw, collate, config.seed, rank=0, world=1)
    if saved:
        game.restore(saved)
        loader.load_state_dict(saved.loader)
        say(f"going on from step {saved.step} of {run}")
    say(_opening(pairs, game, device))

    def save(step: int) -> None:
        checkpoint.save(_freeze(game, pairs, loader.state_dict(), step), run)

    return _train(game, loader, config, run, saved.step if saved else 0, save)


def _train(
    game: Game,
    duels: Iterable[tuple[Batch, Batch]],
    config: Config,
    run: Path,
    start: int,
    save: Callable[[int], None],
) -> int:
    """From `start` finished steps to `loop.steps`, or to Ctrl-C; the steps finished."""
    device = next(game.generator.parameters()).device
    steps = range(start, config.loop.steps)
    bar = tqdm(total=config.loop.steps, initial=start, unit="step", desc="fit")
    with stoppable() as stopped, Curves.open(run, start, config.loop.tensorboard) as curves, bar:
        began, saved_at = time.perf_counter(), start
        for step, (first, second) in zip(steps, duels, strict=False):
            waited = time.perf_counter() - began
            try:
                row = train_step(game, first.to(device), second.to(device), step, config)
            except DivergedError as error:
                raise DivergedError(f"{error}; {_last_good(run, saved_at)}") from None
            frames = first.target.shape[:2].numel() + second.target.shape[:2].numel()
            row |= {"redraws": first.redraws + second.redraws, "data_wait_s": waited}
            row |= {"frames_per_s": frames / (time.perf_counter() - began)}
            curves.write(step + 1, row)
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss_g", "loss_d", "gamma")}, refresh=False)
            bar.update()
            last = stopped() or step + 1 == config.loop.steps
            if last or (step + 1) % config.loop.checkpoint_every == 0:
                save(step + 1)
                saved_at = step + 1
            if last:
                break
            began = time.perf_counter()
    return step + 1


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, asked between steps; a second one interrupts at once."""
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():  # the only one that may set handlers
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _freeze(game: Game, pairs: Pairs, loader: dict[str, int | str], step: int) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        step=step,
        config=pairs.config,
        codec=pairs.dataset.codec,
        generation=pairs.dataset.index["generation"],
        classes=tuple(pairs.dataset.classes),
        targets=pairs.classes(),
        mix_scale=pairs.mix_scale,
        target_scale=pairs.target_scale,
        gamma=game.gamma,
        loader=loader,
        generator=game.generator.state_dict(),
        average=game.average.state_dict(),
        discriminator=game.discriminator.state_dict(),
        generator_optimiser=game.generator_optimiser.state_dict(),
        discriminator_optimiser=game.discriminator_optimiser.state_dict(),
    )


def _opening(pairs: Pairs, game: Game, device: str) -> str:
    said = (
        f"{len(pairs)} pairs of {len(pairs.dataset)} songs; parameters: generator {_millions(game.generator)}, "
        f"discriminator {_millions(game.discriminator)}; on {device}"
    )
    if pairs.dropped:
        said += (
            f"\n{pairs.dropped} of {pairs.targets} target stems are never drawn: nowhere do they sound together with a "
            f"stored mix in {pairs.config.batches.active_share:.0%} of a crop"
        )
    return said


def _last_good(run: Path, step: int) -> str:
    kept = f"{run}/checkpoint.pt is the last good checkpoint (step {step})" if step else "there is no checkpoint yet"
    return f"{kept}. Start another run with a lower optimiser.learning_rate or a higher adagp.gamma"


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
