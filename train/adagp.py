"""AdaGP: gamma, the penalty's weight, follows the discriminator's strength.

Stated in LiveBand: a too strong discriminator (a > a*) raises gamma, a weak one lowers it, by a fixed step size. The
form is ours to choose; the default is the signed step of its first author's Musika.
"""

from __future__ import annotations

import math

from train.config import AdaGP


def next_gamma(gamma: float, advantage: float, c: AdaGP) -> float:
    """gamma after a discriminator step whose mean gap of logits was a = mean(D(x, c) - D(x', c))."""
    gap = advantage - c.advantage
    if c.rule == "sign":
        gamma = gamma + c.step * ((gap > 0) - (gap < 0))
    elif c.rule == "proportional":
        gamma = gamma + c.step * gap
    else:
        gamma = gamma * math.exp(min(c.step * gap, 700.0))  # 700: where float64 ends; the clamp below decides anyway
    return max(c.minimum, min(c.maximum, gamma))
