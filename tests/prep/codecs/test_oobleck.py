"""The Stable Audio VAE with random weights: the means and the audio of `diffusers`, window by window."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.codecs import CodecError, load_codec
from tests.prep.codecs import small

pytest.importorskip("diffusers", reason="pip install 'greenroom[oobleck]'")

WEIGHTS = "diffusion_pytorch_model.safetensors"
SETTINGS: dict[str, Any] = {
    "_class_name": "AutoencoderOobleck",
    "sampling_rate": 2205,
    "encoder_hidden_size": 16,
    "decoder_channels": 4,
    "decoder_input_channels": 8,
    "downsampling_ratios": [4, 8],
    "channel_multiples": [1, 2],
    "audio_channels": 2,
}


def made() -> Any:
    from prep.codecs import oobleck

    torch.manual_seed(0)
    return small.stirred(oobleck.build(SETTINGS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_pretrained(tmp_path_factory.mktemp("oobleck"), SETTINGS, made().state_dict(), WEIGHTS)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.probes.PROBE_S", 0.5)


def test_claims(folder: Path) -> None:
    i = load_codec(f"oobleck={folder}").identity
    assert (i.name, i.sample_rate, i.channels, i.hop, i.dim, i.codebook_size) == ("oobleck", 2205, 2, 32, 8, 0)
    assert not i.causal and not i.delay_samples


def test_streams_share_calls(folder: Path) -> None:
    small.check_company(load_codec(f"oobleck={folder}"))


def test_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu(f"oobleck={folder}", monkeypatch)


def test_certified_as_not_causal(folder: Path) -> None:
    codec = load_codec(f"oobleck={folder}")
    found = small.certified(codec)
    # no more than the windows allow for, and so little less that they are no wider than need be
    assert (codec.hears.ahead - 1) * 32 < found["encode: reaches ahead"].value <= codec.hears.ahead * 32
    assert (codec.hears.back - 1) * 32 < found["encode: reaches back"].value <= codec.hears.back * 32
    assert (codec.sounds.ahead - 1) * 32 < found["decode: reaches ahead"].value <= codec.sounds.ahead * 32
    assert (codec.sounds.back - 1) * 32 < found["decode: reaches back"].value <= codec.sounds.back * 32


def test_windows_are_the_whole_of_diffusers(folder: Path) -> None:
    codec, original = load_codec(f"oobleck={folder}"), made()
    audio = small.music(codec.identity, 150, batch=2)
    latents = codec.encode(audio)
    mean = original.encode(audio).latent_dist.mode()
    torch.testing.assert_close(latents, mean.transpose(1, 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(latents), original.decode(mean).sample, atol=1e-5, rtol=1e-5)


def test_other_networks_are_told(tmp_path: Path) -> None:
    for change, reason in [
        ({"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL'"),
        ({"decoder_input_channels": 6}, "a mean and a deviation"),
        ({"decoder_channels": 8}, "size mismatch"),
    ]:
        small.save_pretrained(tmp_path, {**SETTINGS, **change}, made().state_dict(), WEIGHTS)
        with pytest.raises(CodecError, match=reason):
            load_codec(f"oobleck={tmp_path}")
    weights = small.save_pretrained(tmp_path, SETTINGS, made().state_dict(), WEIGHTS) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CodecError, match="not safetensors, or cut short"):
        load_codec(f"oobleck={tmp_path}")


def test_loading_warns_of_nothing(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_codec(f"oobleck={folder}")
