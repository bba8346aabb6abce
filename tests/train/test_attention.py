import pytest
import torch

from train.attention import block_mask, fused_attention, rotate, rotation, sees, sink_attention, window

CPU = torch.device("cpu")


def test_sink_is_a_softmax_column_that_is_thrown_away() -> None:
    torch.manual_seed(0)
    batch, heads, queries, keys, d = 2, 3, 4, 6, 8
    q, k, v = (torch.randn(batch, heads, n, d, dtype=torch.float64, requires_grad=True) for n in (queries, keys, keys))
    sinks = torch.randn(heads, dtype=torch.float64, requires_grad=True)
    mask = window(queries, keys, 3, CPU).double()

    scores = q @ k.transpose(-1, -2) / d**0.5 + mask
    column = sinks[None, :, None, None].expand(batch, heads, queries, 1)
    reference = torch.cat([column, scores], dim=-1).softmax(dim=-1)[..., 1:] @ v
    out = sink_attention(q, k, v, mask, sinks)

    torch.testing.assert_close(out, reference, atol=1e-12, rtol=0)
    weights = torch.randn_like(out)
    wanted = torch.autograd.grad((reference * weights).sum(), [q, k, v, sinks])
    for found, expected in zip(torch.autograd.grad((out * weights).sum(), [q, k, v, sinks]), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_low_sink_is_none_and_a_high_one_takes_all() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 4)
    mask = window(5, 5, 5, CPU)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(sink_attention(q, k, v, mask, torch.full((2,), -1e9)), plain)
    assert sink_attention(q, k, v, mask, torch.full((2,), 1e3)).abs().max() == 0


def test_window_shows_the_last_frames_up_to_the_query_itself() -> None:
    seen = window(queries=2, keys=5, context=3, device=CPU) == 0
    assert seen.tolist() == [[False, True, True, True, False], [False, False, True, True, True]]


def test_without_a_context_everything_is_seen() -> None:
    assert (window(queries=3, keys=3, context=None, device=CPU) == 0).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("context", [1, 50, 130, None])
def test_flex_attention_follows_the_same_rule_to_the_same_numbers(context: int | None) -> None:
    """Not compiled, as it runs on a CPU, over more than one block of 128; and with one head without a sink."""
    torch.manual_seed(0)
    frames, sinks = 150, torch.tensor([0.7, -3.0, float("-inf")])
    block = block_mask(frames, context, CPU)
    places = torch.arange(frames)
    seen = torch.stack([block.mask_mod(torch.tensor(0), torch.tensor(0), query, places) for query in places])
    assert torch.equal(seen, window(frames, frames, context, CPU) == 0)
    assert torch.equal(seen, sees(places[:, None], places, context).expand(frames, frames))
    q, k, v = torch.randn(3, 2, 3, frames, 16)
    wanted = sink_attention(q, k, v, window(frames, frames, context, CPU), sinks)
    torch.testing.assert_close(fused_attention(q, k, v, block, sinks), wanted, atol=2e-6, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention is compiled for CUDA")
@pytest.mark.parametrize("context", [50, None])
def test_compiled_for_cuda_values_and_gradients_are_the_references(context: int | None) -> None:
    torch.manual_seed(0)
    cuda, frames = torch.device("cuda"), 150
    inputs = [torch.randn(2, 3, frames, 32, device=cuda, requires_grad=True) for _ in range(3)]
    inputs.append(torch.randn(3, device=cuda, requires_grad=True))
    wanted = sink_attention(*inputs[:3], window(frames, frames, context, cuda), inputs[3])
    found = torch.compile(fused_attention)(*inputs[:3], block_mask(frames, context, cuda), inputs[3])
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)  # its kernels multiply in TF32
    weights = torch.randn_like(wanted)
    slopes = [torch.autograd.grad((out * weights).sum(), inputs) for out in (found, wanted)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


def test_rotated_products_depend_on_distance_alone_even_after_hours() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(query: int, key: int) -> torch.Tensor:
        return (rotate(q, rotation(query, 1, 16, CPU)) * rotate(k, rotation(key, 1, 16, CPU))).sum()

    torch.testing.assert_close(product(7, 3), product(1_000_007, 1_000_003), atol=1e-5, rtol=0)
    assert (product(7, 3) - product(7, 6)).abs() > 1e-2
