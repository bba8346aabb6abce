import math
from typing import Any

import pytest

from train.adagp import next_gamma
from train.config import AdaGP

RULES = ["sign", "proportional", "multiplicative"]


@pytest.mark.parametrize("rule", RULES)
def test_a_strong_discriminator_raises_gamma_and_a_weak_one_lowers_it(rule: Any) -> None:
    c = AdaGP(rule=rule, advantage=0.5, step=0.01, minimum=0.1, maximum=10.0)
    assert next_gamma(1.0, 0.6, c) > 1.0 > next_gamma(1.0, 0.4, c)
    assert next_gamma(1.0, 0.5, c) == 1.0


def test_rules_are_those_written_out() -> None:
    assert next_gamma(2.0, 3.0, AdaGP(rule="sign", advantage=1.0, step=0.1)) == pytest.approx(2.1)
    assert next_gamma(2.0, -3.0, AdaGP(rule="sign", advantage=1.0, step=0.1)) == pytest.approx(1.9)
    assert next_gamma(2.0, 3.0, AdaGP(rule="proportional", advantage=1.0, step=0.1)) == pytest.approx(2.2)
    multiplied = next_gamma(2.0, 3.0, AdaGP(rule="multiplicative", advantage=1.0, step=0.1))
    assert multiplied == pytest.approx(2 * math.exp(0.2))


@pytest.mark.parametrize("rule", RULES)
def test_gamma_stays_between_its_bounds(rule: Any) -> None:
    c = AdaGP(rule=rule, advantage=0.0, step=5.0, gamma=1.0, minimum=0.5, maximum=2.0)
    assert next_gamma(1.0, 1e6, c) == 2.0
    assert next_gamma(1.0, -1e6, c) == 0.5


def test_no_step_keeps_gamma() -> None:
    assert next_gamma(1.0, 5.0, AdaGP(step=0.0)) == 1.0
