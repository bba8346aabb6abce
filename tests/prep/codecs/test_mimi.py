"""Mimi with random weights: the tokens and the audio of `transformers`, in steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prep.codecs import CodecError, load_codec
from tests.prep.codecs import small

pytest.importorskip("transformers", reason="pip install 'greenroom[mimi]'")

SETTINGS: dict[str, Any] = {
    "model_type": "mimi",
    "sampling_rate": 1600,
    "num_filters": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "codebook_size": 256,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 4,
    "upsample_groups": 16,
    "sliding_window": 10,
    "layer_scale_initial_scale": 0.5,
    "upsampling_ratios": [5, 4, 2],
}
HOP = 80


def made() -> Any:
    from prep.codecs import mimi

    torch.manual_seed(0)
    network = mimi.build(SETTINGS)
    small.stirred(network.encoder)
    small.stirred(network.decoder)
    hidden = network.encoder(0.3 * torch.randn(60, 1, 6 * HOP)).latents.transpose(0, 1).flatten(1)[None]
    q = network.quantizer
    for half in (q.semantic_residual_vector_quantizer, q.acoustic_residual_vector_quantizer):
        rest = half.input_proj(hidden)[0].T.detach()
        for layer in half.layers:
            rest = small.choose(layer.codebook.embed_sum, rest)
    network.decoder.decoder_seanet.layers[-1].conv.weight.detach().mul_(0.01)  # else it would roar
    return network.eval().requires_grad_(False)


def flat(name: str) -> str:
    """As the published file calls it."""
    for half in ("encoder", "decoder"):
        name = name.replace(f"{half}.{half}_seanet.", f"{half}.").replace(
            f"{half}.{half}_transformer.", f"{half}_transformer."
        )
    return name.replace("encoder.downsample.", "downsample.").replace("decoder.upsample.", "upsample.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = {flat(name): tensor for name, tensor in made().state_dict().items()}
    return small.save_pretrained(tmp_path_factory.mktemp("mimi"), SETTINGS, tensors, "model.safetensors")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.probes.PROBE_S", 0.5)


def test_claims(folder: Path) -> None:
    i = load_codec(f"mimi={folder}").identity
    assert (i.name, i.sample_rate, i.channels, i.hop, i.dim, i.codebook_size) == ("mimi", 1600, 1, HOP, 4, 256)
    assert i.causal and not i.delay_samples


def test_streams_share_calls(folder: Path) -> None:
    small.check_company(load_codec(f"mimi={folder}"))


def test_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu(f"mimi={folder}", monkeypatch)


def test_certified(folder: Path) -> None:
    found = small.certified(load_codec(f"mimi={folder}"))
    assert found["encode: reaches ahead"].value == found["decode: reaches ahead"].value == 0
    assert found["encode: reaches back"].value > HOP and found["decode: reaches back"].value > HOP


@pytest.mark.parametrize("frames", [1, 4, 30])
def test_whole_is_streamed(folder: Path, frames: int) -> None:
    codec = load_codec(f"mimi={folder}")
    audio = small.music(codec.identity, 70, batch=2)
    tokens = codec.encode(audio)
    encoded, decoded = small.in_steps(codec, audio, tokens, frames)
    assert torch.equal(encoded, tokens) and len(tokens.unique()) > 50
    torch.testing.assert_close(decoded, codec.decode(tokens), atol=1e-5, rtol=0)


def test_the_numbers_are_those_of_transformers(folder: Path) -> None:
    """From the first frame on, and beyond the attention's window."""
    codec, original = load_codec(f"mimi={folder}"), made()
    audio = small.music(codec.identity, 30)
    tokens = codec.encode(audio)
    decoded = original.decode(tokens.transpose(1, 2)).audio_values
    torch.testing.assert_close(codec.decode(tokens), decoded, atol=1e-5, rtol=0)
    assert torch.equal(tokens, original.double().encode(audio.double()).audio_codes.transpose(1, 2))


def test_other_networks_are_told(tmp_path: Path) -> None:
    small.save_pretrained(tmp_path, {**SETTINGS, "model_type": "encodec"}, {}, "model.safetensors")
    with pytest.raises(CodecError, match="model_type is 'encodec', not 'mimi'"):
        load_codec(f"mimi={tmp_path}")
    small.save_pretrained(tmp_path, SETTINGS, {}, "model.safetensors")
    with pytest.raises(CodecError, match=r"model.safetensors cannot be used \(\d+ tensors are missing"):
        load_codec(f"mimi={tmp_path}")
