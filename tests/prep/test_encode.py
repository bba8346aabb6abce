"""Streams side by side, stretch by stretch, come out as each one does whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prep.codecs import Codec, CodecIdentity
from prep.codecs.streams import STRETCH_FRAMES, Span, WindowedEncoder
from prep.encode import encode
from tests.prep.made import small_codec

HOP = 8


class Ahead(WindowedEncoder):
    """A frame is the mean of its own samples, and of those of the three frames that follow."""

    hears = Span(0, 3)
    identity = CodecIdentity("ahead", "", "", "float32", 800, 1, HOP, 2, causal=False, delay_samples=0)

    def encode_window(self, audio: Tensor) -> Tensor:
        own = audio[:, 0].unflatten(1, (-1, HOP)).mean(2)
        padded = torch.nn.functional.pad(own, (0, 3))
        return torch.stack([own, padded[:, 1:-2] + padded[:, 2:-1] + padded[:, 3:]], dim=2)


@pytest.mark.parametrize("codec", [Ahead(), small_codec()])
def test_side_by_side_as_whole(codec: Codec) -> None:
    i, rng = codec.identity, np.random.default_rng(0)
    samples = 2 * STRETCH_FRAMES * i.hop + i.hop + 3
    streams = 0.1 * rng.standard_normal((3, i.channels, samples)).astype(np.float32)
    starts = range(0, samples, STRETCH_FRAMES * i.hop)
    pieces = [(n, streams[n, :, s : s + STRETCH_FRAMES * i.hop]) for s in starts for n in range(3)]
    frames = 2 * STRETCH_FRAMES + 2
    latents = np.full((3, frames, i.dim), np.nan, np.float16)
    encode(codec, pieces, {0, 2}, latents, lambda _: None)
    with torch.inference_mode():
        whole = codec.encode(torch.from_numpy(streams)).numpy()
    assert np.isnan(latents[1]).all()  # was not wanted
    np.testing.assert_allclose(latents[[0, 2]], whole[[0, 2]], atol=1e-3, rtol=1e-3)
