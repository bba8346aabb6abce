import math

import pytest
import torch

from train.losses import discriminator_loss, generator_loss, gradient_penalty, penalty_weights


def test_equal_logits_cost_ln_2() -> None:
    logits = torch.tensor([3.0, -1.0, 0.0])
    assert discriminator_loss(logits, logits).item() == pytest.approx(math.log(2), abs=1e-6)
    assert generator_loss(logits, logits).item() == pytest.approx(math.log(2), abs=1e-6)


def test_losses_are_the_papers_sums() -> None:
    real, fake = [1.5, -0.3, 4.0], [-2.0, 0.7, 3.0]
    pairs = list(zip(real, fake, strict=True))
    wanted_d = sum(math.log(1 + math.exp(-(r - f))) for r, f in pairs) / 3
    wanted_g = sum(math.log(1 + math.exp(-(f - r))) for r, f in pairs) / 3
    assert discriminator_loss(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(wanted_d, abs=1e-6)
    assert generator_loss(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(wanted_g, abs=1e-6)


def test_only_the_gap_between_paired_logits_counts() -> None:
    real, fake = torch.randn(2, 5, dtype=torch.float64)
    moved = discriminator_loss(real + 7, fake + 7)
    torch.testing.assert_close(moved, discriminator_loss(real, fake))


def test_penalty_of_a_linear_critic_is_its_squared_norm() -> None:
    torch.manual_seed(0)
    w, x = torch.randn(6, 3), torch.randn(4, 6, 3, requires_grad=True)
    assert gradient_penalty((x * w).sum(dim=(1, 2)), x).item() == pytest.approx(w.square().sum().item(), rel=1e-6)


def test_penalty_of_a_quadratic_critic_and_its_gradient() -> None:
    # D(x) = a |x|^2: |dD/dx|^2 = 4 a^2 |x|^2, and its derivative by a is 8 a |x|^2
    a, x = torch.tensor(0.5, requires_grad=True), torch.randn(4, 6, 3, requires_grad=True)
    penalty = gradient_penalty(a * x.square().sum(dim=(1, 2)), x)
    norm = x.detach().square().sum(dim=(1, 2)).mean().item()
    assert penalty.item() == pytest.approx(4 * 0.25 * norm, rel=1e-5)
    (slope,) = torch.autograd.grad(penalty, a)
    assert slope.item() == pytest.approx(8 * 0.5 * norm, rel=1e-5)


@pytest.mark.parametrize("every", [1, 2, 5, 16])
def test_lazy_penalties_cost_on_average_what_unlazy_ones_do(every: int) -> None:
    total = {"r1": 0.0, "r2": 0.0}
    for step in range(6 * every):
        for name, weight in penalty_weights(step, every).items():
            total[name] += weight
    assert total == {"r1": 6.0 * every, "r2": 6.0 * every}


def test_lazy_penalties_take_turns() -> None:
    paid = [(step, *penalty_weights(step, 3)) for step in range(12) if penalty_weights(step, 3)]
    assert paid == [(0, "r1"), (3, "r2"), (6, "r1"), (9, "r2")]
    assert penalty_weights(7, 1) == {"r1": 1.0, "r2": 1.0}
