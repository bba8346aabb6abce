"""The game of two networks: a discriminator step, gamma's step, a generator step.

A step takes two batches, one a phase, as R3GAN does. Nothing in it draws by chance: noise comes with the batch.
Each rank plays its share of the batch, a part of it at a time; real and generated are paired by index and share
their condition, so losses and penalties are means over pairs, and weighted means of parts are the batch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from train import checkpoint
from train.adagp import next_gamma
from train.batches import Batch
from train.config import Config, Loop
from train.discriminator import Discriminator
from train.errors import DivergedError
from train.generator import Generator
from train.losses import discriminator_loss, generator_loss, gradient_penalty, penalty_weights
from train.ranks import Ranks, unsynced

Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]  # of a part; and what it measured


@dataclass
class Game:
    """The two players, the average of the first that is to play, their optimisers, and the penalty's weight.

    `synced_…` is the same network, for forward passes whose backward pass is to average its gradients over ranks.
    """

    generator: Generator
    average: Generator
    discriminator: Discriminator
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    gamma: float
    ranks: Ranks
    synced_generator: nn.Module
    synced_discriminator: nn.Module

    @classmethod
    def new(cls, config: Config, dim: int, classes: int, ranks: Ranks | None = None) -> Self:
        ranks = ranks or Ranks()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            generator, discriminator = networks(config, dim, classes)
        generator.to(ranks.device)
        discriminator.to(ranks.device)
        average = deepcopy(generator)
        _compile(config, generator, discriminator)
        rate, betas = config.optimiser.learning_rate, config.optimiser.betas
        return cls(
            generator,
            average,
            discriminator,
            torch.optim.Adam(generator.parameters(), rate, betas),
            torch.optim.Adam(discriminator.parameters(), rate, betas),
            config.adagp.gamma,
            ranks,
            ranks.synced(generator),
            ranks.synced(discriminator),
        )

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        self.generator.load_state_dict(saved.generator)
        self.average.load_state_dict(saved.average)
        self.discriminator.load_state_dict(saved.discriminator)
        self.generator_optimiser.load_state_dict(saved.generator_optimiser)
        self.discriminator_optimiser.load_state_dict(saved.discriminator_optimiser)
        self.gamma = saved.gamma


def networks(config: Config, dim: int, classes: int) -> tuple[Generator, Discriminator]:
    """As the config wants them, for latents of `dim`."""
    c = config.batches
    generator = Generator(config.generator, dim, classes, c.condition_dim)
    return generator, Discriminator(config.discriminator, dim, classes, c.crop_frames, c.condition_dim)


def train_step(game: Game, first: Batch, second: Batch, step: int, config: Config) -> dict[str, float]:
    """One step of both players, in place; what it measured, averaged over ranks. Raises DivergedError, on every rank,
    before a bad number is applied."""
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

    def loss(part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            fake = game.generator(part.heard, part.noise, part.generator_class, part.generator_vector).float()
        sides = {"r1": part.target.clone().requires_grad_("r1" in weights), "r2": fake.requires_grad_("r2" in weights)}
        shared = part.beside(config.discriminator.alignment), part.discriminator_class, part.discriminator_vector
        with torch.compiler.set_stance("force_eager" if weights else "default"):  # compiled, it has one derivative
            logits = {name: game.synced_discriminator(x, *shared) for name, x in sides.items()}
        relativistic = discriminator_loss(logits["r1"], logits["r2"])
        penalties = {name: gradient_penalty(logits[name], sides[name]) for name in weights}
        gap = logits["r1"] - logits["r2"]
        measured = {"loss_d": relativistic, "advantage": gap.mean(), "sign": gap.sign().mean(), **penalties}
        return relativistic + sum(game.gamma / 2 * weights[name] * each for name, each in penalties.items()), measured

    measured, norm = _descend(game, game.synced_discriminator, game.discriminator_optimiser, loss, batch, config)
    _finite("discriminator", measured["loss_d"], norm, step)
    game.discriminator_optimiser.step()
    return measured | {"grad_norm_d": norm}


def generator_step(game: Game, batch: Batch, step: int, config: Config) -> dict[str, float]:
    """L_G = mean softplus(-(D(x', c) - D(x, c)))."""

    # not requires_grad_(False): a compiled network does not notice it
    frozen = {name: parameter.detach() for name, parameter in game.discriminator.named_parameters()}

    def loss(part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        fake = game.synced_generator(part.heard, part.noise, part.generator_class, part.generator_vector)
        shared = part.beside(config.discriminator.alignment), part.discriminator_class, part.discriminator_vector
        real, played = (functional_call(game.discriminator, frozen, (x, *shared)) for x in (part.target, fake))
        loss = generator_loss(real, played)
        return loss, {"loss_g": loss}

    measured, norm = _descend(game, game.synced_generator, game.generator_optimiser, loss, batch, config)
    _finite("generator", measured["loss_g"], norm, step)
    game.generator_optimiser.step()
    return measured | {"grad_norm_g": norm}


def _descend(
    game: Game, synced: nn.Module, optimiser: torch.optim.Adam, loss_of: Loss, batch: Batch, config: Config
) -> tuple[dict[str, float], float]:
    """The gradient of the batch's mean loss over parts and ranks, into `synced`; what was measured, its norm."""
    optimiser.zero_grad(set_to_none=True)
    measured: dict[str, Tensor] = {}
    parts = batch.split(config.loop.micro_batch_size)
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else unsynced(synced):
            share = len(part) / len(batch)
            with _autocast(config.loop, game.ranks.device):
                loss, found = loss_of(part)
            (share * loss).backward()
        measured = {name: measured.get(name, 0.0) + share * value.detach() for name, value in found.items()}
    norm = torch.nn.utils.get_total_norm([p.grad for p in synced.parameters() if p.grad is not None])
    return game.ranks.mean(measured), norm.item()


def _autocast(c: Loop, device: torch.device) -> torch.autocast:
    lower = c.precision == "bfloat16" or (c.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)


def _compile(config: Config, generator: Generator, discriminator: Discriminator) -> None:
    """In place, so that names of parameters stay; it happens when they are first called."""
    c, on_gpu = config.loop, generator.inputs.weight.is_cuda
    automatic = "inductor" if on_gpu else "none"
    backend = automatic if c.compile == "auto" else c.compile
    for network in (generator, discriminator) if backend != "none" else ():
        network.compile(backend=backend)
    head_dim = config.generator.width // config.generator.heads
    if on_gpu and backend == "inductor" and c.attention == "auto" and head_dim >= 16:  # its least
        generator.fuse(config.batches.crop_frames)


def _finite(whose: str, loss: float, norm: float, step: int) -> None:
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise DivergedError(f"the {whose}'s loss is {loss}, its gradient's norm {norm}, at step {step + 1}")
