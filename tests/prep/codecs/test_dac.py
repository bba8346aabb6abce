"""DAC with random weights: the tokens and the audio of `transformers`, window by window."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prep.codecs import CodecError, EncodeStream, load_codec
from tests.prep.codecs import small

pytest.importorskip("transformers", reason="pip install 'greenroom[dac]'")

SETTINGS: dict[str, Any] = {
    "model_type": "dac",
    "sampling_rate": 2205,
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 16,
    "downsampling_ratios": [4, 8],
    "n_codebooks": 4,
    "codebook_size": 256,
    "codebook_dim": 4,
}


def made(settings: dict[str, Any]) -> Any:
    from prep.codecs import dac

    torch.manual_seed(0)
    network = small.stirred(dac.build(settings))
    rest = hidden = network.encoder(0.3 * torch.randn(1, 1, 400 * network.config.hop_length))
    for each in network.quantizer.quantizers:
        each.in_proj.weight.normal_()
        small.choose(each.codebook.weight, each.in_proj(rest)[0].T)
        rest = rest - each(rest)[0]
    while network.decoder(network.quantizer(hidden)[0]).std() > 0.1:  # else it would roar
        network.decoder.conv2.weight.mul_(0.5)
    return network


def saved(folder: Path, **changes: Any) -> Path:
    settings = {**SETTINGS, **changes}
    return small.save_pretrained(folder, settings, made(settings).state_dict(), "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("dac"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.probes.PROBE_S", 0.5)


def test_claims(folder: Path) -> None:
    i = load_codec(f"dac={folder}").identity
    assert (i.name, i.sample_rate, i.channels, i.hop, i.dim, i.codebook_size) == ("dac", 2205, 1, 32, 4, 256)
    assert not i.causal and not i.delay_samples


def test_streams_share_calls(folder: Path) -> None:
    small.check_company(load_codec(f"dac={folder}"))


def test_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.check_on_gpu(f"dac={folder}", monkeypatch)


def test_certified_as_not_causal(folder: Path) -> None:
    codec = load_codec(f"dac={folder}")
    found = small.certified(codec)
    assert 0 < found["encode: reaches ahead"].value <= codec.hears.ahead * 32
    assert 0 < found["encode: reaches back"].value <= codec.hears.back * 32
    assert 0 < found["decode: reaches ahead"].value <= codec.sounds.ahead * 32
    assert 0 < found["decode: reaches back"].value <= codec.sounds.back * 32
    assert found["encode: streamed"].value > 0 and found["encode: streamed"].limit is None


@pytest.mark.parametrize("ratios", [[4, 8], [2, 5]])
def test_windows_are_the_whole_of_transformers(tmp_path: Path, ratios: list[int]) -> None:
    """Over two windows' edges. Where a ratio is odd, the original's audio ends some samples early."""
    codec = load_codec(f"dac={saved(tmp_path, downsampling_ratios=ratios)}")
    audio = small.music(codec.identity, 150, batch=2)
    tokens = codec.encode(audio)
    original = made({**SETTINGS, "downsampling_ratios": ratios})
    decoded = original.decode(audio_codes=tokens.transpose(1, 2)).audio_values[:, None]
    found = codec.decode(tokens)
    assert found.shape == audio.shape and decoded.shape[2] > audio.shape[2] - codec.identity.hop
    torch.testing.assert_close(found[..., : decoded.shape[2]], decoded, atol=1e-5, rtol=0)
    assert torch.equal(tokens, original.double().encode(audio.double()).audio_codes.transpose(1, 2))
    assert len(tokens.unique()) > 50


@pytest.mark.parametrize("frames", [1, 5, 64])
def test_a_stream_in_stretches_is_the_whole(folder: Path, frames: int) -> None:
    codec = load_codec(f"dac={folder}")
    audio = small.music(codec.identity, 70)
    stream, parts = EncodeStream(codec), audio.split(frames * 32, 2)
    out = [each for k, part in enumerate(parts) for each in stream.push(part, last=k == len(parts) - 1)]
    assert torch.equal(torch.cat(out, 1), codec.encode(audio))


def test_a_step_hears_its_past_and_no_more(folder: Path) -> None:
    codec = load_codec(f"dac={folder}")
    audio = small.music(codec.identity, 70)
    _, state = codec.encode_step(audio[..., : 40 * 32], codec.encode_state(1))
    tokens, state = codec.encode_step(audio[..., 40 * 32 : 50 * 32], state)
    assert torch.equal(tokens, codec.encode(audio[..., : 50 * 32])[:, 40:])
    assert state[0].shape[2] <= codec.hears.back * 32


def test_other_networks_are_told(tmp_path: Path) -> None:
    small.save_pretrained(tmp_path, {**SETTINGS, "model_type": "mimi"}, {}, "model.safetensors")
    with pytest.raises(CodecError, match="model_type is 'mimi', not 'dac'"):
        load_codec(f"dac={tmp_path}")
    weights = saved(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CodecError, match="not safetensors, or cut short"):
        load_codec(f"dac={tmp_path}")
