"""EnCodec with random weights: what `transformers` computes over a whole clip, in steps."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prep.codecs import CodecError, EncodeStream, load_codec
from tests.prep.codecs import small

pytest.importorskip("transformers", reason="pip install 'greenroom[encodec]'")

SETTINGS: dict[str, Any] = {
    "model_type": "encodec",
    "sampling_rate": 1600,
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": 256,
    "upsampling_ratios": [5, 4, 2],
    "target_bandwidths": [2.0],
}
HOP = 40


def made() -> Any:
    from prep.codecs import encodec

    torch.manual_seed(0)
    network = small.stirred(encodec.build(SETTINGS))
    rest = network.encoder(0.3 * torch.randn(1, 1, 400 * HOP))[0].T
    for layer in network.quantizer.layers:
        rest = small.choose(layer.codebook.embed, rest)
    return network


def saved(folder: Path) -> Path:
    return small.save_pretrained(folder, SETTINGS, made().state_dict(), "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("encodec"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.probes.PROBE_S", 0.5)


def padded_with(network: Any, mode: str) -> Any:
    for module in network.modules():
        if hasattr(module, "pad_mode"):
            module.pad_mode = mode
    return network


def test_claims(folder: Path) -> None:
    i = load_codec(f"encodec={folder}").identity
    assert (i.name, i.sample_rate, i.channels, i.hop, i.dim) == ("encodec", 1600, 1, HOP, 16)
    assert i.causal and not i.delay_samples and not i.codebook_size and i.dtype == "float32"
    tokens = load_codec(f"encodec@tokens={folder}").identity
    assert (tokens.dim, tokens.codebook_size, tokens.dtype) == (6, 256, "float64")
    assert tokens.weights == i.weights and tokens.architecture != i.architecture


@pytest.mark.parametrize("name", ["encodec", "encodec@tokens"])
def test_streams_share_calls(folder: Path, name: str) -> None:
    small.check_company(load_codec(f"{name}={folder}"))


@pytest.mark.parametrize("name", ["encodec", "encodec@tokens"])
def test_on_a_gpu(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu(f"{name}={folder}", monkeypatch)


@pytest.mark.parametrize("name", ["encodec", "encodec@tokens"])
def test_certified(folder: Path, name: str) -> None:
    codec = load_codec(f"{name}={folder}")
    found = small.certified(codec)
    assert found["encode: reaches ahead"].value == found["decode: reaches ahead"].value == 0
    assert found["encode: reaches back"].value > HOP and found["decode: reaches back"].value > HOP
    assert found["encode: streamed"].limit == found["decode: streamed"].limit == 1e-5


@pytest.mark.parametrize("frames", [1, 3, 7])
def test_whole_is_streamed(folder: Path, frames: int) -> None:
    codec = load_codec(f"encodec={folder}")
    audio = small.music(codec.identity, 70, batch=2)
    latents = codec.encode(audio)
    encoded, decoded = small.in_steps(codec, audio, latents, frames)
    assert latents.std() > 0.01
    torch.testing.assert_close(encoded, latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(decoded, codec.decode(latents), atol=1e-5, rtol=0)


def test_the_numbers_are_those_of_transformers_after_silence(folder: Path) -> None:
    codec, original = load_codec(f"encodec={folder}"), padded_with(made(), "constant")
    audio = small.music(codec.identity, 20)
    silence = torch.zeros(1, 1, 40 * HOP)  # a second
    hidden = original.encoder(torch.cat([silence, audio], 2))
    latents = codec.encode(audio)
    torch.testing.assert_close(latents, hidden[..., 40:].transpose(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.decode(latents), original.decoder(hidden)[..., 40 * HOP :], atol=1e-5, rtol=0)
    tokens = original.double().quantizer.encode(original.encoder(torch.cat([silence, audio], 2).double()))
    found = load_codec(f"encodec@tokens={folder}").encode(audio)
    assert torch.equal(found, tokens[..., 40:].permute(1, 2, 0)) and len(found.unique()) > 50


def test_the_original_differs_at_its_beginning_only(folder: Path) -> None:
    """It hears six frames of the future there."""
    codec, original = load_codec(f"encodec={folder}"), made()
    audio = small.music(codec.identity, 100)
    off = (codec.encode(audio)[0] - original.encoder(audio)[0].T).abs().amax(1)
    assert off[0] > 1e-2 > 1e-4 > off[60:].max()


def test_a_stream_in_stretches_is_the_whole(folder: Path) -> None:
    codec = load_codec(f"encodec={folder}")
    audio = small.music(codec.identity, 9)
    stream = EncodeStream(codec)
    parts = [out for k, part in enumerate(audio.split(4 * HOP, 2)) for out in stream.push(part, last=k == 2)]
    torch.testing.assert_close(torch.cat(parts, 1), codec.encode(audio), atol=1e-5, rtol=0)


def test_tokens_as_shards_hold_them_and_what_is_none(folder: Path) -> None:
    codec = load_codec(f"encodec@tokens={folder}")
    tokens = codec.encode(small.music(codec.identity, 5))
    assert tokens.dtype == torch.int64 and torch.equal(codec.decode(tokens.half().float()), codec.decode(tokens))
    for bad in (tokens - 256, tokens + 256, tokens + 0.5):
        with pytest.raises(ValueError, match=r"no token of 0 \.\.\. 255"):
            codec.decode(bad)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "dac"}, "model_type is 'dac', not 'encodec'"),
        ({"use_causal_conv": False}, "use_causal_conv is False; only the causal network"),
        ({"normalize": True}, "it levels the whole clip"),
        ({"hidden_size": 8}, "size mismatch"),
        ({"target_bandwidths": [4.0]}, "tensors are missing"),
        ({"upsampling_ratios": "many"}, "config.json cannot be used"),
    ],
)
def test_other_networks_are_told(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    small.save_pretrained(tmp_path, {**SETTINGS, **change}, made().state_dict(), "model.safetensors")
    with pytest.raises(CodecError, match=reason):
        load_codec(f"encodec={tmp_path}")


def test_broken_files_are_told(tmp_path: Path) -> None:
    weights = saved(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CodecError, match=r"model.safetensors cannot be used \(not safetensors, or cut short.*Fetch it"):
        load_codec(f"encodec={tmp_path}")
    weights.write_bytes(whole)
    tensors = copy.deepcopy(load_file(weights))
    tensors["encoder.layers.0.conv.bias"][0] = float("nan")
    small.save_pretrained(tmp_path, SETTINGS, tensors, "model.safetensors")
    with pytest.raises(CodecError, match=r"NaN or infinity in encoder.layers.0.conv.bias"):
        load_codec(f"encodec={tmp_path}")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CodecError, match=r"config\.json cannot be used"):
        load_codec(f"encodec={tmp_path}")
    with pytest.raises(CodecError, match=r"asks for 'bfloat16'; there is encodec and encodec@tokens"):
        load_codec(f"encodec@bfloat16={tmp_path}")
