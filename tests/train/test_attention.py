import torch

from train.attention import rotate, rotation, sink_attention, window

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


def test_rotated_products_depend_on_distance_alone_even_after_hours() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(query: int, key: int) -> torch.Tensor:
        return (rotate(q, rotation(query, 1, 16, CPU)) * rotate(k, rotation(key, 1, 16, CPU))).sum()

    torch.testing.assert_close(product(7, 3), product(1_000_007, 1_000_003), atol=1e-5, rtol=0)
    assert (product(7, 3) - product(7, 6)).abs() > 1e-2
