from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.train.made import small
from tests.train.test_game import toy
from train.config import Config
from train.cost import flops_a_step
from train.game import Game, train_step
from train.generator import Generator


class Counted(TorchDispatchMode):
    """Every operation that runs; torch's own counter cannot follow autograd.grad to a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


@pytest.mark.parametrize("every", [1, 2, 4])
def test_it_is_what_steps_are_counted_to_take(every: int) -> None:
    """With ungrouped convolutions, which the counter gets right in backward passes too."""
    config = small(
        batches={"batch_size": 32},
        generator={"width": 64},
        discriminator={"width": 64, "groups": 1},
        optimiser={"penalty_every": every},
    )
    game, steps = Game.new(config, 2, 1), 2 * every
    with Counted() as counter:
        for step in range(steps):
            train_step(game, toy(step), toy(step + 9), step, config)
    assert flops_a_step(config, 2, 1) == pytest.approx(counter.total / steps, rel=0.1)


def test_a_generator_takes_two_a_parameter_and_frame_and_grows_with_the_batch() -> None:
    config = Config()
    whole, half = (flops_a_step(small(batches={"batch_size": size}), 4, 3) for size in (8, 4))
    assert whole == 2 * half > 0
    with torch.device("meta"):
        generator = Generator(config.generator, 128, 18)
    frames = config.batches.crop_frames * config.batches.batch_size
    inside = [p for name, p in generator.blocks.named_parameters() if p.dim() == 2 and "norm" not in name]
    least = sum(4 * 2 * frames * p.numel() for p in inside)
    assert least < flops_a_step(config, 128, 18) < 10 * least
