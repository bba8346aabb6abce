"""Causal means causal: the past never changes with the future, and whole = chunked = streamed = batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prep.codecs import CausalCodec, load_codec
from prep.codecs.causal import MEL_FLOOR, WINDOWS, overlap_add
from tests.prep.codecs import small
from tests.prep.made import small_codec

HOP = 4096


@pytest.fixture(scope="module")
def codec() -> CausalCodec:
    return small_codec()


def music(frames: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Noise with a beat, so that no level is special."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 2, frames * HOP, generator=generator)
    return 0.1 * noise * (1 + torch.sin(torch.arange(frames * HOP) / 3000))


def encode_in(codec: CausalCodec, audio: Tensor, chunk: int) -> Tensor:
    state, out = codec.encode_state(len(audio)), []
    for start in range(0, audio.shape[2], chunk * HOP):
        latents, state = codec.encode_step(audio[:, :, start : start + chunk * HOP], state)
        out.append(latents)
    return torch.cat(out, 1)


def decode_in(codec: CausalCodec, latents: Tensor, chunk: int) -> Tensor:
    state, out = codec.decode_state(len(latents)), []
    for start in range(0, latents.shape[1], chunk):
        audio, state = codec.decode_step(latents[:, start : start + chunk], state)
        out.append(audio)
    return torch.cat(out, 2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 13])
def test_whole_is_chunked(codec: CausalCodec, chunk: int) -> None:
    audio = music(13)
    latents = codec.encode(audio)
    torch.testing.assert_close(encode_in(codec, audio, chunk), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(decode_in(codec, latents, chunk), codec.decode(latents), atol=1e-5, rtol=0)


def test_batched_is_alone(codec: CausalCodec) -> None:
    audio = music(6, batch=3)
    latents = codec.encode(audio)
    decoded = codec.decode(latents)
    for i in range(3):
        torch.testing.assert_close(codec.encode(audio[i : i + 1]), latents[i : i + 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.decode(latents[i : i + 1]), decoded[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame", range(1, 9))
def test_the_future_does_not_reach_the_past(codec: CausalCodec, frame: int) -> None:
    """Other finite futures, loud and silent, and NaN: the encoder and the decoder are convolutions."""
    audio = music(9)
    latents = encode_in(codec, audio, 9)  # the steps take NaN
    decoded = decode_in(codec, latents, 9)
    for future in (music(9, seed=1) * 30, torch.zeros_like(audio), torch.full_like(audio, float("nan"))):
        other = torch.cat([audio[:, :, : frame * HOP], future[:, :, frame * HOP :]], 2)
        assert torch.equal(encode_in(codec, other, 9)[:, :frame], latents[:, :frame])
    for future_latents in (latents.flip(1) * 5, torch.full_like(latents, float("nan"))):
        changed = torch.cat([latents[:, :frame], future_latents[:, frame:]], 1)
        assert torch.equal(decode_in(codec, changed, 9)[:, :, : frame * HOP], decoded[:, :, : frame * HOP])


def test_each_frame_reaches_its_own_samples(codec: CausalCodec) -> None:
    """No delay: what changes in a frame changes its latent and its samples at once."""
    audio = music(5)
    latents = codec.encode(audio)
    louder = audio.clone()
    louder[:, :, 4 * HOP - 1] += 0.5  # the last sample of frame 3
    assert not torch.equal(codec.encode(louder)[:, 3], latents[:, 3])
    changed = latents.clone()
    changed[:, 3] += 1
    difference = (codec.decode(changed) - codec.decode(latents)).abs()
    assert difference[:, :, 3 * HOP : 3 * HOP + 256].max() > 0


@pytest.mark.parametrize("samples", [0, 1, HOP - 1, HOP, HOP + 1, 3 * HOP - 1, 3 * HOP, 3 * HOP + 1])
def test_frames_of_a_length(codec: CausalCodec, samples: int) -> None:
    frames = -(-samples // HOP)
    latents = codec.encode(music(4)[:, :, :samples])
    assert latents.shape == (1, frames, codec.config.dim)
    assert codec.decode(latents).shape == (1, 2, frames * HOP)


@pytest.mark.parametrize("shape", [(1, 1, HOP), (1, 6, HOP), (1, 2, HOP + 1), (2, HOP), (1, 2, 0)])
def test_wrong_shapes_are_told(codec: CausalCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(batch, 2, k \* 4096\) samples"):
        codec.encode_step(torch.zeros(shape), codec.encode_state(1))


def test_state_is_a_value(codec: CausalCodec) -> None:
    """A step changes neither the state it was given nor the codec."""
    audio = music(2)
    state = codec.encode_state(1)
    first, _ = codec.encode_step(audio, state)
    second, _ = codec.encode_step(audio, state)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(state, codec.encode_state(1), strict=True))


def test_overlap_add_is_the_sum_of_shifted_windows() -> None:
    windows = torch.randn(1, 2, 5, 12, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, 5 * 8 + 4), np.float32)
    for k in range(5):
        expected[:, k * 8 : k * 8 + 12] += windows[0, :, k].numpy()
    out, ringing = overlap_add(windows, 8, torch.zeros(1, 2, 4))
    np.testing.assert_allclose(out[0], expected[:, :40], atol=1e-6)
    np.testing.assert_allclose(ringing[0], expected[:, 40:], atol=1e-6)


def test_no_latent_however_wrong_deafens() -> None:
    """Each window's RMS is bounded, and what the linear half adds is linear."""
    codec = load_codec()
    latents = torch.zeros(1, 4, 128)
    latents[..., 80:] = 50 * torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(0))
    assert float(codec.decode(latents).square().mean().sqrt()) < 2 * 0.7 * 0.87


def test_noise_is_unit_spread_and_does_not_drift(codec: CausalCodec) -> None:
    noise = codec.noise(0, 64)
    torch.testing.assert_close(noise.abs(), torch.ones_like(noise.abs()))
    assert abs(noise.mean()) < 5e-3
    assert torch.equal(codec.noise(60, 8), torch.cat([codec.noise(60, 4), codec.noise(0, 4)]))
    assert torch.equal(codec.noise(3, 2), noise[12:20])


def test_the_codec_that_ships_is_causal_and_small() -> None:
    codec = load_codec()
    identity = codec.identity
    assert (identity.sample_rate, identity.channels, identity.hop, identity.dim) == (44100, 2, 4096, 128)
    assert identity.causal and identity.delay_samples == 0 and identity.frame_rate == pytest.approx(10.7666, abs=1e-4)
    audio = music(6)
    latents = codec.encode(audio)
    torch.testing.assert_close(encode_in(codec, audio, 1), latents, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(decode_in(codec, latents, 1), codec.decode(latents), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [0.0, 0.3])
def test_features_are_log_mel(codec: CausalCodec, side: float) -> None:
    """Whatever is left out, and however many windows are transformed at a time."""
    c = codec.config
    generator = torch.Generator().manual_seed(0)
    seen = 0.1 * torch.randn(3, 2, c.n_fft - c.feature_hop + 40 * c.hop, generator=generator, dtype=torch.float64)
    seen[:, 1] *= side
    seen[2, :, 9 * c.hop :] = 0
    windows = seen.unfold(2, c.n_fft, c.feature_hop) * codec.window
    assert windows.shape[2] > 2 * WINDOWS
    mel = torch.fft.rfft(windows).abs() @ codec.mel.double()
    level = torch.log10(mel.clamp_min(MEL_FLOOR)) + 1  # (B, C, T * per frame, mels)
    wanted = level.unflatten(2, (40, -1)).permute(0, 2, 3, 1, 4).flatten(2)
    torch.testing.assert_close(codec.features(seen.float()).double(), wanted, atol=2e-4, rtol=0)


def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu("causal", monkeypatch)


def test_silence_has_a_gradient(codec: CausalCodec) -> None:
    seen = torch.zeros(1, 2, codec.config.n_fft - codec.config.feature_hop + codec.config.hop)
    seen[0, :, 0] = 1.0
    codec.features(seen.requires_grad_()).sum().backward()
    assert seen.grad is not None and torch.isfinite(seen.grad).all()
