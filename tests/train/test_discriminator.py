import math

import pytest
import torch

from train import config
from train.discriminator import Block, Discriminator, halve
from train.losses import gradient_penalty

DIM, FRAMES = 5, 16
SETTINGS = config.Discriminator(width=64, groups=8, blocks_per_level=2, levels=5)


def stirred() -> Discriminator:
    torch.manual_seed(0)
    discriminator = Discriminator(SETTINGS, DIM, classes=3, frames=FRAMES)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return discriminator


def test_one_logit_a_crop_that_depends_on_all_it_is_given() -> None:
    discriminator = stirred()
    accompaniment, mix = torch.randn(2, 3, FRAMES, DIM)
    instrument = torch.tensor([0, 1, 3])
    logits = discriminator(accompaniment, mix, instrument)
    assert logits.shape == (3,)
    for frame in range(FRAMES):
        nudged = accompaniment.clone()
        nudged[:, frame] += 1
        assert (discriminator(nudged, mix, instrument) != logits).all()
    assert (discriminator(accompaniment, mix + 1, instrument) != logits).all()
    assert (discriminator(accompaniment, mix, torch.tensor([1, 2, 0])) != logits).all()


def test_a_vector_beside_the_class_counts_and_none_is_the_null_vector() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(SETTINGS, DIM, 3, FRAMES, vector_dim=7)
    for parameter in discriminator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    accompaniment, mix = torch.randn(2, 2, FRAMES, DIM)
    instrument, vector = torch.tensor([0, 3]), torch.randn(2, 7)
    given, null = (discriminator(accompaniment, mix, instrument, each) for each in (vector, None))
    assert (given != null).all()
    vector[1] = torch.nan
    half = discriminator(accompaniment, mix, instrument, vector)
    torch.testing.assert_close(half, torch.stack([given[0], null[1]]))
    half.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in discriminator.parameters())


def test_crops_of_a_batch_do_not_meet() -> None:
    discriminator = stirred()
    accompaniment, mix = torch.randn(2, 3, FRAMES, DIM)
    instrument = torch.tensor([0, 1, 3])
    alone = torch.cat(
        [discriminator(accompaniment[i : i + 1], mix[i : i + 1], instrument[i : i + 1]) for i in range(3)]
    )
    torch.testing.assert_close(discriminator(accompaniment, mix, instrument), alone, atol=1e-5, rtol=1e-5)


def test_halving_is_a_1_2_1_filter_around_every_second_frame() -> None:
    x = torch.randn(2, 3, 8)
    kernel = torch.tensor([1.0, 2.0, 1.0]).div(4).expand(3, 1, 3)
    torch.testing.assert_close(halve(x), torch.nn.functional.conv1d(x, kernel, stride=2, padding=1, groups=3))


def test_initialisation_is_r3gans() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(SETTINGS, DIM, classes=3, frames=FRAMES)
    first = discriminator.blocks[0]
    assert isinstance(first, Block)
    widen, grouped, narrow = first.branch[0].weight, first.branch[2].weight, first.branch[4].weight
    gain = math.sqrt(2 / 1.04) * 10 ** (-1 / 4)
    assert widen.std().item() == pytest.approx(gain / math.sqrt(64), rel=0.05)
    assert grouped.shape == (128, 16, 3)
    assert grouped.std().item() == pytest.approx(gain / math.sqrt(16 * 3), rel=0.05)
    assert narrow.abs().max() == 0
    x = torch.randn(2, 64, 8)
    assert torch.equal(first(x, torch.randn(2, 64)), x)


def test_the_class_scales_a_blocks_input() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, 1.0)
    torch.nn.init.normal_(block.branch[4].weight)
    torch.nn.init.normal_(block.scale.weight)
    x, condition = torch.randn(2, 8, 6), torch.randn(2, 8)
    scaled = x * (1 + condition @ block.scale.weight.T)[..., None]
    torch.testing.assert_close(block(x, condition), x + block.branch(scaled))


def test_a_penalty_reaches_every_weight_before_the_logit() -> None:
    discriminator = stirred()
    x, mix = torch.randn(3, FRAMES, DIM, requires_grad=True), torch.randn(3, FRAMES, DIM)
    gradient_penalty(discriminator(x, mix, torch.tensor([0, 1, 3])), x).backward()
    weights = {name: p for name, p in discriminator.named_parameters() if name.endswith("weight")}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights.values())
