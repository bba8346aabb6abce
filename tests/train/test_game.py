from copy import deepcopy

import pytest
import torch
from torch import Tensor

from tests.train.made import small
from train.batches import Batch
from train.game import Game, discriminator_step, generator_step, train_step


def toy(seed: int, size: int = 32, crop: int = 8, dim: int = 2) -> Batch:
    """The target is what was heard, turned by a quarter."""
    rng = torch.Generator().manual_seed(seed)
    mix, noise = torch.randn(size, crop + 1, dim, generator=rng), torch.randn(size, crop, 3, generator=rng)
    classes = torch.zeros(size, dtype=torch.int64)
    return Batch(mix, torch.stack([-mix[:, :-1, 1], mix[:, :-1, 0]], dim=-1), noise, classes, classes, 0)


def test_the_accompaniment_comes_to_follow_the_mix() -> None:
    config = small(
        generator={"width": 32, "context_frames": 8},
        discriminator={"width": 32},
        adagp={"gamma": 0.05},
        optimiser={"learning_rate": 2e-3, "warmup_steps": 10, "penalty_every": 4},
    )
    game = Game.new(config, 2, 1)
    for step in range(80):
        train_step(game, toy(2 * step), toy(2 * step + 1), step, config)
    unseen = toy(10**6, size=200)
    with torch.no_grad():
        played = game.generator(unseen.heard, unseen.noise, unseen.generator_class)
    right = (played - unseen.target).square().mean()
    shuffled = (played - unseen.target.roll(1, dims=0)).square().mean()
    assert right < 0.25 * shuffled


@pytest.mark.parametrize(("step", "penalty"), [(0, "r1"), (1, None), (2, "r2")])
def test_a_discriminator_step_descends_the_written_out_loss(step: int, penalty: str | None) -> None:
    config = small(adagp={"gamma": 0.7})
    game = Game.new(config, 2, 1)
    warm = deepcopy(game)
    for number in range(3):  # at first most of both networks is zero
        train_step(warm, toy(number), toy(number + 9), number, config)
    warm.gamma = 0.7
    reference, batch = deepcopy(warm), toy(5)
    measured = discriminator_step(warm, batch, step, config)

    critic = reference.discriminator
    with torch.no_grad():
        fake = reference.generator(batch.mix[:, :-1], batch.noise, batch.generator_class)
    sides = {"r1": batch.target.requires_grad_(), "r2": fake.requires_grad_()}
    logits = {name: critic(x, batch.mix[:, 1:], batch.discriminator_class) for name, x in sides.items()}
    loss = torch.log1p(torch.exp(-(logits["r1"] - logits["r2"]))).mean()
    assert measured["loss_d"] == pytest.approx(loss.item(), abs=1e-6)
    assert measured["advantage"] == pytest.approx((logits["r1"] - logits["r2"]).mean().item(), abs=1e-6)
    assert {"r1", "r2"} & measured.keys() == ({penalty} if penalty else set())
    if penalty:
        (slope,) = torch.autograd.grad(logits[penalty].sum(), sides[penalty], create_graph=True)
        squares = slope.flatten(1).square().sum(dim=1).mean()
        assert measured[penalty] == pytest.approx(squares.item(), rel=1e-5)
        loss = loss + 0.7 / 2 * 4 * squares  # every 2 steps one of the two: 4 times
    loss.backward()
    for found, wanted in zip(warm.discriminator.parameters(), critic.parameters(), strict=True):
        expected = torch.zeros_like(wanted) if wanted.grad is None else wanted.grad
        torch.testing.assert_close(found.grad, expected, atol=1e-6, rtol=1e-4)


def test_a_generator_step_leaves_the_discriminator_as_it_was() -> None:
    config = small()
    game = Game.new(config, 2, 1)
    before = deepcopy(game)
    generator_step(game, toy(0), 0, config)

    def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    assert same(game.discriminator, before.discriminator) and not same(game.generator, before.generator)
    assert all(parameter.requires_grad for parameter in game.discriminator.parameters())


def test_what_plays_is_an_average_of_the_generator() -> None:
    def after(half_life: float) -> tuple[list[Tensor], list[Tensor]]:
        config = small(optimiser={"ema_half_life_steps": half_life})
        game = Game.new(config, 2, 1)
        averages = [parameter.detach().clone() for parameter in game.generator.parameters()]
        for step in range(3):
            train_step(game, toy(step), toy(step + 9), step, config)
            now = list(game.generator.parameters())
            averages = [a * 0.5**0.5 + b * (1 - 0.5**0.5) for a, b in zip(averages, now, strict=True)]
        wanted = averages if half_life else list(game.generator.parameters())
        return list(game.average.parameters()), wanted

    for half_life in (2.0, 0.0):
        for found, wanted in zip(*after(half_life), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_the_rate_warms_up_and_stays() -> None:
    config = small(optimiser={"learning_rate": 1e-3, "warmup_steps": 4})
    game = Game.new(config, 2, 1)
    rates = [train_step(game, toy(0), toy(1), step, config)["learning_rate"] for step in range(6)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])
