"""Whatever is handed to the codec that ships: finite latents, or an error that says what is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prep.codecs import CausalCodec, load_codec
from prep.codecs.streams import STRETCH_FRAMES
from prep.encode import Stream, encode
from prep.pieces import mixed
from prep.spool import Spool
from tests.prep.made import small_codec

HOP, RATE = 4096, 44100
SAMPLES = 3 * HOP + 7
TIME_S = torch.arange(SAMPLES) / RATE


@pytest.fixture(scope="module")
def codec() -> CausalCodec:
    return load_codec()


def stereo(signal: Tensor) -> Tensor:
    return signal.expand(1, 2, -1)


@pytest.mark.parametrize(
    "audio",
    [
        stereo(torch.zeros(SAMPLES)),
        stereo(torch.sign(torch.sin(2 * torch.pi * 100 * TIME_S))),
        stereo(torch.sign(torch.sin(2 * torch.pi * 10000 * TIME_S))),
        stereo(torch.ones(SAMPLES)),
        stereo(-torch.ones(SAMPLES)),
        torch.stack([torch.ones(SAMPLES), -torch.ones(SAMPLES)])[None],
        stereo(torch.full((SAMPLES,), 1e-40)),
        stereo(torch.full((SAMPLES,), 1e6)),
        stereo(torch.ones(1)),
        stereo(torch.zeros(0)),
    ],
    ids=["silence", "square", "fast-square", "DC", "-DC", "opposed", "denormal", "120dB-over", "1-sample", "nothing"],
)
def test_defined_results(codec: CausalCodec, audio: Tensor) -> None:
    latents = codec.encode(audio)
    frames = -(-audio.shape[2] // HOP)
    assert latents.shape == (1, frames, 128) and torch.isfinite(latents).all()
    decoded = codec.decode(latents)
    assert decoded.shape == (1, 2, frames * HOP) and torch.isfinite(decoded).all()
    assert frames == 0 or decoded.abs().max() < 4 * max(1.0, float(audio.abs().max()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_one_sample_that_is_no_audio_is_told(codec: CausalCodec, value: float) -> None:
    audio = torch.zeros(1, 2, SAMPLES)
    audio[0, 1, HOP + 3] = value
    with pytest.raises(ValueError, match="the audio holds NaN, infinity or samples beyond"):
        codec.encode(audio)
    latents = torch.zeros(1, 4, 128)
    latents[0, 2, 100] = value
    if not np.isfinite(value):
        with pytest.raises(ValueError, match="the latents hold NaN or infinity"):
            codec.decode(latents)


@pytest.mark.parametrize("shape", [(1, 1, SAMPLES), (1, 6, SAMPLES), (1, 6, 0), (2, SAMPLES), (SAMPLES,)])
def test_other_channels_are_told(codec: CausalCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"floats \(batch, 2, samples\); got .* Expand mono to all channels"):
        codec.encode(torch.zeros(shape))


def test_integers_and_other_latents_are_told(codec: CausalCodec) -> None:
    with pytest.raises(ValueError, match=r"takes floats .* got torch.int16"):
        codec.encode(torch.zeros(1, 2, SAMPLES, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"takes \(batch, frames, 128\); got \(1, 4, 64\)"):
        codec.decode(torch.zeros(1, 4, 64))


class Counting:
    """The codec, and the most that it is handed or hands on at a time."""

    def __init__(self, codec: CausalCodec) -> None:
        self.codec, self.identity = codec, codec.identity
        self.most_samples = self.most_held = 0

    def encode_state(self, batch: int) -> tuple[Tensor, ...]:
        return self.codec.encode_state(batch)

    def encode_step(self, audio: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.most_samples = max(self.most_samples, audio.shape[2])
        self.most_held = max(self.most_held, sum(part.untyped_storage().nbytes() for part in state))
        return self.codec.encode_step(audio, state)


def test_hours_are_encoded_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the stretch takes the codec what two take: so would 3 hours, whose stems lie in a file."""
    monkeypatch.setattr("prep.spool.HELD_BYTES", 0)
    most = []
    for stretches in (2, 10):
        counting = Counting(small_codec().freeze())
        samples = stretches * STRETCH_FRAMES * HOP - 5
        with Spool(2, samples, tmp_path) as spool:
            spool.put(0, np.random.default_rng(0).uniform(-1, 1, (2, samples)).astype(np.float32))
            latents = np.zeros((1, stretches * STRETCH_FRAMES, counting.identity.dim), np.float16)
            pieces = mixed({0: ((0,), 0.0)}, [0.0], spool, STRETCH_FRAMES * HOP, lambda stage: None)
            stream = Stream(latents[0])
            encode(counting, ((stream, audio) for _, audio in pieces), lambda stage: None)
        assert latents.any(2).all()
        most.append((counting.most_samples, counting.most_held))
    assert most[0] == most[1] and most[0][0] == STRETCH_FRAMES * HOP and most[0][1] < 100_000


def test_encode_and_decode_go_in_stretches_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = small_codec()
    audio = 0.1 * torch.randn(1, 2, 23 * HOP + 9, generator=torch.Generator().manual_seed(0))
    latents = codec.encode(audio)
    decoded = codec.decode(latents)
    monkeypatch.setattr("prep.codecs.causal.STRETCH_FRAMES", 5)
    steps = []
    for name in ("encode_step", "decode_step"):
        run = getattr(codec, name)
        monkeypatch.setattr(
            codec, name, lambda given, state, run=run: (steps.append(given.shape), run(given, state))[1]
        )
    torch.testing.assert_close(codec.encode(audio), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.decode(latents), decoded, atol=1e-5, rtol=0)
    assert [shape[2] for shape in steps[:5]] == 4 * [5 * HOP] + [4 * HOP]
    assert [shape[1] for shape in steps[5:]] == 4 * [5] + [4]
