from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.made import small
from train.batches import Batch
from train.game import Game, discriminator_step, generator_step, train_step
from train.ranks import Ranks


def toy(seed: int, size: int = 32, crop: int = 8, dim: int = 2) -> Batch:
    """The target is what was heard, turned by a quarter."""
    rng = torch.Generator().manual_seed(seed)
    mix, noise = torch.randn(size, crop + 1, dim, generator=rng), torch.randn(size, crop, 3, generator=rng)
    classes = torch.zeros(size, dtype=torch.int64)
    return Batch(mix, torch.stack([-mix[:, :-1, 1], mix[:, :-1, 0]], dim=-1), noise, classes, classes, 0, 0)


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


def trained(steps: int = 6, **loop: Any) -> tuple[Game, list[dict[str, float]]]:
    config = small(optimiser={"learning_rate": 1e-3}, adagp={"advantage": 0.01}, loop=loop)
    game = Game.new(config, 2, 1)
    return game, [train_step(game, toy(step), toy(step + 99), step, config) for step in range(steps)]


def near(one: tuple[Game, list[dict[str, float]]], other: tuple[Game, list[dict[str, float]]], atol: float) -> None:
    for row, again in zip(one[1], other[1], strict=True):
        assert row == pytest.approx(again, abs=atol, rel=atol)
    for name in ("generator", "average", "discriminator"):
        pairs = zip(getattr(one[0], name).parameters(), getattr(other[0], name).parameters(), strict=True)
        for found, wanted in pairs:
            torch.testing.assert_close(found, wanted, atol=atol, rtol=atol)


@pytest.mark.parametrize("size", [12, 16])
def test_a_batch_in_parts_is_the_batch(size: int) -> None:
    near(trained(), trained(micro_batch_size=size), 1e-5)  # 32 in parts of 12: 12, 12, 8


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at each input
def test_compiled_networks_take_the_same_steps_and_penalties_run_eager() -> None:
    game, rows = trained(compile="aot_eager")
    assert game.generator._compiled_call_impl and game.discriminator._compiled_call_impl
    assert not game.average._compiled_call_impl
    near(trained(), (game, rows), 1e-5)


def test_bfloat16_is_near_and_keeps_parameters_and_losses_in_float32() -> None:
    exact, rounded = trained(), trained(precision="bfloat16")
    assert exact[1] != rounded[1]
    for row, again in zip(exact[1], rounded[1], strict=True):
        losses = ("loss_d", "loss_g", "advantage", "gamma")
        assert [again[name] for name in losses] == pytest.approx([row[name] for name in losses], abs=0.05)
        assert again.get("r1", 0.0) == pytest.approx(row.get("r1", 0.0), rel=0.1)
    assert {p.dtype for p in rounded[0].generator.parameters()} == {torch.float32}


def test_on_the_cpu_nothing_is_compiled_fused_or_rounded_unasked() -> None:
    near(trained(), trained(compile="none", precision="float32"), 0.0)
    assert Game.new(small(), 2, 1).generator.flex is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention is CUDA's fast path")
def test_on_a_gpu_the_compiled_and_fused_generator_takes_the_same_steps() -> None:
    def rows(**loop: Any) -> tuple[bool, list[dict[str, float]]]:
        config = small(generator={"width": 64}, loop={"precision": "float32", **loop})
        game = Game.new(config, 2, 1, Ranks(device=torch.device("cuda")))
        batches = [(toy(step).to(game.ranks.device), toy(step + 99).to(game.ranks.device)) for step in range(6)]
        found = [train_step(game, *pair, step, config) for step, pair in enumerate(batches)]
        return game.generator.flex is not None, found

    (plain, wanted), (fused, found) = rows(compile="none"), rows()
    assert fused and not plain and not rows(attention="sdpa")[0]
    for row, again in zip(found, wanted, strict=True):
        assert row == pytest.approx(again, abs=0.01, rel=0.02)


def test_steps_draw_nothing_from_the_global_generators() -> None:
    """So that the loader's place is all there is of random state."""
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    trained(2)
    assert torch.equal(before, torch.get_rng_state()) and np.random.get_state()[1].tolist() == numpy_before
