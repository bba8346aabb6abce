import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prep.codecs import CodecError, load_codec, save_codec
from prep.codecs.loading import SHIPPED
from tests.prep.made import small_codec


def test_round_trip_keeps_the_identity(tmp_path: Path) -> None:
    codec = small_codec()
    save_codec(codec, tmp_path / "a.safetensors")
    first = load_codec(f"causal={tmp_path / 'a.safetensors'}")
    save_codec(first, tmp_path / "b.safetensors")
    second = load_codec(f"causal={tmp_path / 'b.safetensors'}")
    assert first.identity == second.identity
    # stored as float16
    torch.testing.assert_close(first.wave_in.weight, codec.wave_in.weight, atol=1e-3, rtol=1e-3)


def test_identity_follows_weights_and_architecture() -> None:
    codec = small_codec()
    before = codec.identity
    assert before == small_codec().identity != small_codec(seed=1).identity
    with torch.no_grad():
        codec.wave_in.weight[0, 0] += 1e-6
    after = codec.identity
    assert (
        after.architecture == before.architecture and after.weights != before.weights and after.digest != before.digest
    )


def test_the_weights_that_ship_fit_in_20_mb() -> None:
    assert SHIPPED.stat().st_size <= 20e6
    assert not any(parameter.requires_grad for parameter in load_codec().parameters())


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"codec 'encodec' is unknown; there is one: causal"):
        load_codec("encodec")
    with pytest.raises(CodecError, match=r"gone.safetensors do not exist. Train them: train codec"):
        load_codec(f"causal={tmp_path / 'gone.safetensors'}")
    bad = {"pickle": pickle.dumps({"a": 1}), "cut": SHIPPED.read_bytes()[:100_000], "empty": b""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CodecError, match=f"{name} cannot be loaded"):
            load_codec(f"causal={tmp_path / name}")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(CodecError, match="metadata does not say codec: causal"):
        load_codec(f"causal={tmp_path / 'other'}")
    save_file({"a": torch.zeros(1)}, tmp_path / "newer", {"codec": "causal", "config": '{"hops": 1}'})
    with pytest.raises(CodecError, match=r"does not know: \['hops'\]"):
        load_codec(f"causal={tmp_path / 'newer'}")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    codec = small_codec()
    codec.wave_in.weight[0, 0] = float("nan")
    save_codec(codec, tmp_path / "nan.safetensors")
    with pytest.raises(CodecError, match=r"NaN or infinity in wave_in.weight"):
        load_codec(f"causal={tmp_path / 'nan.safetensors'}")


def test_bfloat16_is_another_codec(tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    save_codec(small_codec(), path)
    codec, half = load_codec(f"causal={path}"), load_codec(f"causal@bfloat16={path}")
    assert (codec.identity.dtype, half.identity.dtype) == ("float32", "bfloat16")
    assert codec.identity.digest != half.identity.digest and codec.identity.weights == half.identity.weights
    audio = 0.1 * torch.randn(1, 2, 6 * codec.identity.hop, generator=torch.Generator().manual_seed(0))
    whole = half.encode(audio)
    assert whole.dtype == torch.float32
    off = (whole - codec.encode(audio)).abs().max() / whole.abs().max()
    assert 0 < off < 0.05
    parts, state = [], half.encode_state(1)
    for part in audio.split(2 * codec.identity.hop, dim=2):
        latents, state = half.encode_step(part, state)
        parts.append(latents)
    assert (torch.cat(parts, dim=1) - whole).abs().max() / whole.abs().max() < 0.02
    with pytest.raises(CodecError, match=r"asks for dtype 'float8'; there are float32 \(the default\) and bfloat16"):
        load_codec("causal@float8")
