"""CoDiCodec: the adapter with a stand-in for the package, and with the package's own network, shrunk, where it is."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prep.codecs import CodecError, EncodeStream, load_codec
from tests.prep.codecs import small

ADAPTER = "prep.codecs.codicodec"
# 8 frames of 16 samples a chunk; windows of 16
HPARAMS = SimpleNamespace(
    hop=8, fac=2, spec_length=16, stft_channels=2, num_latents=16, bottleneck_channels=2, num_layers=1, dim=4,
    default_denoising_steps_ar=2, default_time_prompt=0.4, sigma_max=80.0,
)  # fmt: skip


def spectra(audio: Tensor) -> Tensor:
    """(B, 2, samples) -> (B, 2, bins, columns): here, the second half of each window, plus a little of the first."""
    windows = audio.unfold(2, 16, 8)
    return (windows[..., 8:] + 0.1 * windows[..., :8]).transpose(2, 3)


class StandIn(nn.Module):
    """Each code is a mean over the chunk; decoded, it fills its part of the chunk, with some past and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, 0.3]))

    def encoder_forward(self, x: Tensor, dont_quantize: bool) -> Tensor:
        assert dont_quantize and x.shape[1:] == (2, 8, 16)
        return torch.tanh(self.gain * (x.mean(2) + 0.1 * x.mean((2, 3))[..., None]).transpose(1, 2))

    def pre_decoder_forward(self, codes: Tensor) -> Tensor:
        return codes.transpose(1, 2)[:, :, None]

    def decoder_forward(
        self, x: Tensor, codes: Tensor, features: Tensor, output: str, sigma_left: Tensor, sigma_right: Tensor
    ) -> Tensor:
        assert output == "right" and x.shape[3] == 32 and codes.shape[1:] == (32, 2) and sigma_left < sigma_right
        left, right = x.chunk(2, 3)
        return features[..., 16:] * self.gain[0] + 0.01 * left + 1e-4 * right


def waveform(x: Tensor) -> Tensor:
    """(B, 2, bins, columns) -> (B, 2, samples and one hop)."""
    return nn.functional.pad(x.transpose(2, 3).flatten(2), (0, 8)).clamp(-1, 1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    parts: dict[str, dict[str, Any]] = {
        "codicodec": {"hparams": HPARAMS, "__path__": []},
        "codicodec.audio": {"to_representation_encoder": spectra, "to_waveform": waveform},
        "codicodec.hparams_inference": {"sigma_rescale": 0.8},
        "codicodec.models": {"UNet": StandIn},
        "codicodec.utils": {
            "get_sigma_continuous": lambda share: 0.002 + 80 * share**7,
            "reverse_step": lambda x, noise, sigma: x + sigma * noise,
        },
    }
    for name, content in parts.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    monkeypatch.setattr("prep.probes.PROBE_S", 0.001)
    yield
    sys.modules.pop(ADAPTER, None)


@pytest.fixture
def folder(tmp_path: Path, stand_in: None) -> Path:
    torch.save({"gen_state_dict": StandIn().state_dict(), "step": 3}, tmp_path / "codicodec.pt")
    return tmp_path


def test_claims(folder: Path) -> None:
    i = load_codec(f"codicodec={folder}").identity
    assert (i.name, i.sample_rate, i.channels, i.hop, i.dim) == ("codicodec", 44100, 2, 16, 4)
    assert not i.causal and not i.delay_samples and not i.codebook_size


def test_streams_share_calls(folder: Path) -> None:
    small.check_company(load_codec(f"codicodec={folder}"))


def test_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu(f"codicodec={folder}", monkeypatch)


def test_the_certificate_tells_how_far_it_hears(folder: Path) -> None:
    found = small.certified(load_codec(f"codicodec={folder}"))
    assert found["encode: reaches ahead"].value == 7 * 16 + 8  # of a chunk's first frame: the chunk and half a window
    assert found["encode: reaches back"].value == 7 * 16
    assert found["encode: streamed"].value > 0.01 and found["encode: streamed"].limit is None
    assert found["decode: reaches back"].value > 8 * 16  # each chunk continues the one before


@pytest.mark.parametrize("frames", [1, 5, 8, 64])
def test_a_stream_in_stretches_is_the_whole(folder: Path, frames: int) -> None:
    codec = load_codec(f"codicodec={folder}")
    audio = small.music(codec.identity, 77)
    latents = codec.encode(audio)
    assert latents.shape == (1, 77, 4)
    stream, parts = EncodeStream(codec), audio.split(frames * 16, 2)
    out = [each for k, part in enumerate(parts) for each in stream.push(part, last=k == len(parts) - 1)]
    torch.testing.assert_close(torch.cat(out, 1), latents, atol=1e-5, rtol=0)


def test_whole_chunks_are_decoded_in_steps(folder: Path) -> None:
    codec = load_codec(f"codicodec={folder}")
    latents = codec.encode(small.music(codec.identity, 80, batch=2))
    whole = codec.decode(latents)
    for frames in (8, 16, 40):
        _, decoded = small.in_steps(codec, whole, latents, frames)
        torch.testing.assert_close(decoded, whole, atol=1e-5, rtol=0)
    state, out = codec.decode_state(2), []
    for part in latents[:, :16].split(3, 1):
        audio, state = codec.decode_step(part, state)
        out.append(audio)
    ends = torch.cat(out, 2)  # the last step has heard the second chunk to its end
    torch.testing.assert_close(ends[..., -16:], whole[..., 15 * 16 : 16 * 16], atol=1e-5, rtol=0)


def test_what_is_no_checkpoint_is_told(folder: Path) -> None:
    weights = folder / "codicodec.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CodecError, match=r"codicodec.pt cannot be used \(not tensors alone, or cut short"):
        load_codec(f"codicodec={folder}")
    torch.save({"gen_state_dict": SimpleNamespace(a=1)}, weights)  # a pickle could run anything
    with pytest.raises(CodecError, match="not tensors alone, or cut short"):
        load_codec(f"codicodec={folder}")
    torch.save({"gen_state_dict": {"other": torch.zeros(1)}}, weights)
    with pytest.raises(CodecError, match="1 tensors are missing, the first is gain"):
        load_codec(f"codicodec={folder}")


SHRUNK = {
    "dim": 32, "head_dim": 16, "heads": 2, "num_layers": 1, "num_layers_encoder": 1, "cond_channels": 32,
    "frontend_base_channels": 4, "frontend_multipliers_list": [1, 1, 2, 8],
    "frontend_layers_list": [1, 1, 1, 1], "frontend_encoder_layers_list": [1, 1, 1, 1],
}  # fmt: skip


@pytest.mark.skipif(not importlib.util.find_spec("codicodec"), reason="pip install 'greenroom[codicodec]'")
def test_the_numbers_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cudnn.benchmark
    adapter = importlib.import_module(ADAPTER)
    assert torch.backends.cudnn.benchmark == flags  # which the package sets when imported
    models, inference = (importlib.import_module(f"codicodec.{name}") for name in ("models", "inference"))
    for name, value in SHRUNK.items():
        monkeypatch.setattr(models, name, value)
    monkeypatch.setattr("codicodec.utils.mixed_precision", False)
    network = small.stirred(adapter.build({}))
    codec = adapter.adapt(network, "")
    audio = small.music(codec.identity, 18)
    latents, silence = codec.encode(audio), torch.zeros(1, 2, 6 * 4096 + 1024)
    package = SimpleNamespace(gen=network)
    codes = inference.encode_audio_inference(
        torch.cat([audio, silence], 2), package, 64, device=torch.device("cpu"), dont_quantize=True
    )  # (1, chunks, codes, bottleneck)
    expected = (torch.atanh(codes) / 0.8).reshape(1, 24, 64)[:, :18]
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
    _decoded_like_the_package(monkeypatch, adapter, codec, codes)


def _decoded_like_the_package(monkeypatch: pytest.MonkeyPatch, adapter: Any, codec: Any, codes: Tensor) -> None:
    """Two chunks, with the same noise, which the package draws in another order."""
    latents = (torch.atanh(codes) / 0.8).reshape(1, 24, 64)[:, :16]
    _, past, before, _ = codec.decode_state(1)
    before, out = codec._codes(before), []
    for k in range(2):
        prompt, *noises = adapter._noise(k, 3, past)
        drawn = iter([noises[0], prompt, noises[1], torch.zeros_like(past)])
        with monkeypatch.context() as patched:
            patched.setattr(torch, "randn_like", lambda like, drawn=drawn: next(drawn))
            both = codec.network.decode_autoregressive_step(codes[:, k], past_repr=past, past_latents=before)
        out.append(adapter.to_waveform(both)[..., 32768:-1024])
        past, before = both[..., -32:], codes[:, k]
    torch.testing.assert_close(codec.decode(latents), torch.cat(out, 2), atol=1e-4, rtol=0)
