from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from train import config
from train.errors import RunError
from train.generator import Generator

DIM, CONTEXT, FRAMES = 5, 6, 20


def stirred(blocks: int = 2, vector_dim: int = 0, **changes: Any) -> Generator:
    """A generator none of whose parameters is zero, as after training."""
    torch.manual_seed(0)
    c = config.Generator(width=16, blocks=blocks, heads=2, noise_dim=3, context_frames=CONTEXT, **changes)
    generator = Generator(c, DIM, 4, vector_dim)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return generator.eval()


def inputs(frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, frames, DIM, generator=rng), torch.randn(2, frames, 3, generator=rng), torch.tensor([1, 4])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [1, 3, 7, FRAMES])
@pytest.mark.parametrize("sink", [True, False])
@torch.no_grad()
def test_streamed_is_parallel_for_every_prefix_and_past_the_window(
    size: int, dtype: torch.dtype, tolerance: float, sink: bool
) -> None:
    """In float32 to 1e-5 of unit variance, which latents have; in float64 far below what float32 can tell apart."""
    generator, (mix, noise, instrument) = stirred(sink=sink).to(dtype), inputs()
    mix, noise = mix.to(dtype), noise.to(dtype)
    scale = generator(mix, noise, instrument).std()
    state, streamed = generator.init_state(2), []
    for mix_part, noise_part in zip(mix.split(size, dim=1), noise.split(size, dim=1), strict=True):
        out, state = generator.step(mix_part, noise_part, instrument, state)
        streamed.append(out)
    together = torch.cat(streamed, dim=1) / scale
    for prefix in range(1, FRAMES + 1):
        whole = generator(mix[:, :prefix], noise[:, :prefix], instrument) / scale
        torch.testing.assert_close(together[:, :prefix], whole, atol=tolerance, rtol=0)


@pytest.mark.parametrize("cut", [1, 5, 6, 13])
@torch.no_grad()
def test_another_future_leaves_the_past_bit_equal(cut: int) -> None:
    generator, (mix, noise, instrument) = stirred(), inputs()
    other_mix, other_noise = mix.clone(), noise.clone()
    other_mix[:, cut:] = 100 * torch.randn_like(other_mix[:, cut:])
    other_noise[:, cut:] = torch.randn_like(other_noise[:, cut:])
    before, after = generator(mix, noise, instrument), generator(other_mix, other_noise, instrument)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert not torch.isclose(before[:, cut:], after[:, cut:]).any(dim=-1).all()


@torch.no_grad()
def test_a_block_looks_back_context_frames_and_no_further() -> None:
    generator, (mix, noise, instrument) = stirred(blocks=1), inputs()
    other = mix.clone()
    other[:, 3] += 1
    changed = (generator(mix, noise, instrument) != generator(other, noise, instrument)).any(dim=-1).any(dim=0)
    assert changed.nonzero()[:, 0].tolist() == list(range(3, 3 + CONTEXT))


@torch.no_grad()
def test_a_state_is_a_value_and_stays_small() -> None:
    generator, (mix, noise, instrument) = stirred(), inputs()
    _, state = generator.step(mix, noise, instrument, generator.init_state(2))
    kept = [tensor.clone() for cache in state.caches for tensor in cache]
    first, after = generator.step(mix[:, :1], noise[:, :1], instrument, state)
    again, _ = generator.step(mix[:, :1], noise[:, :1], instrument, state)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(kept, [t for cache in state.caches for t in cache], strict=True))
    assert after.position == FRAMES + 1
    assert {tensor.shape[2] for cache in after.caches for tensor in cache} == {CONTEXT - 1}


@torch.no_grad()
def test_instrument_noise_and_mix_all_matter() -> None:
    generator, (mix, noise, instrument) = stirred(), inputs()
    out = generator(mix, noise, instrument)
    for other in (
        generator(mix, noise, instrument.flip(0)),
        generator(mix, noise + 1, instrument),
        generator(mix + 1, noise, instrument),
    ):
        assert (out - other).abs().max() > 1e-3


def test_a_context_of_one_frame_streams_without_a_cache() -> None:
    c = config.Generator(width=8, blocks=1, heads=1, noise_dim=3, context_frames=1)
    generator, (mix, noise, instrument) = Generator(c, DIM, 4), inputs()
    _, state = generator.step(mix, noise, instrument, generator.init_state(2))
    assert state.caches[0][0].shape[2] == 0


@torch.no_grad()
def test_one_that_is_not_causal_hears_the_future_and_does_not_stream() -> None:
    generator, (mix, noise, instrument) = stirred(blocks=1, causal=False), inputs()
    other = mix.clone()
    other[:, FRAMES - 1] += 1
    assert (generator(mix, noise, instrument) != generator(other, noise, instrument)).any(dim=-1).all()
    with pytest.raises(RunError, match=r"generator\.causal is false: .* cannot play frame by frame; play one that"):
        generator.step(mix, noise, instrument, generator.init_state(2))


def test_without_sinks_there_are_no_parameters_for_them_and_attention_is_plain() -> None:
    plain, sunk = stirred(sink=False), stirred()
    names = {name for name, _ in sunk.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert names == {"blocks.0.attention.sinks", "blocks.1.attention.sinks"}
    sunk.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for block in sunk.blocks:
            block.attention.sinks.fill_(-1e9)
        torch.testing.assert_close(plain(*inputs()), sunk(*inputs()))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("changes", [{}, {"causal": False}, {"sink": False}], ids=str)
@torch.no_grad()
def test_fused_it_plays_the_same(changes: dict[str, Any]) -> None:
    generator, (mix, noise, instrument) = stirred(**changes), inputs()
    fused = deepcopy(generator)
    fused.fuse(FRAMES)
    wanted = generator(mix, noise, instrument)
    found = fused(mix, noise, instrument)
    assert not torch.equal(found, wanted)  # it went another way
    torch.testing.assert_close(found / wanted.std(), wanted / wanted.std(), atol=1e-5, rtol=0)
    assert torch.equal(fused(mix[:, :9], noise[:, :9], instrument), generator(mix[:, :9], noise[:, :9], instrument))
    with torch.autocast("cpu", torch.bfloat16):
        near = fused(mix, noise, instrument).float()
    assert (near - wanted).std() < 0.05 * wanted.std()


@torch.no_grad()
def test_a_vector_matters_and_none_is_the_null_vector() -> None:
    generator, (mix, noise, instrument) = stirred(vector_dim=7), inputs()
    vector = torch.randn(2, 7)
    given, null = (generator(mix, noise, instrument, each) for each in (vector, None))
    assert (given - null).abs().max() > 1e-3
    half = torch.stack([vector[0], torch.full((7,), torch.nan)])
    mixed = generator(mix, noise, instrument, half)
    torch.testing.assert_close(mixed, torch.stack([given[0], null[1]]))
    streamed, _ = generator.step(mix, noise, instrument, generator.init_state(2), vector)
    assert torch.equal(streamed, given)


@pytest.mark.parametrize("changes", [{}, {"causal": False}, {"sink": False}], ids=str)
def test_every_parameter_learns(changes: dict[str, Any]) -> None:
    generator, (mix, noise, instrument) = stirred(vector_dim=7, **changes), inputs()
    vector = torch.stack([torch.randn(7), torch.full((7,), torch.nan)])
    generator(mix, noise, instrument, vector).square().sum().backward()
    assert all(p.grad is not None and 0 < p.grad.abs().max() < torch.inf for p in generator.parameters())
