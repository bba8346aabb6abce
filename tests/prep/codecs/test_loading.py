import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prep.codecs import CodecError, load_codec, save_codec
from prep.codecs.loading import SHIPPED
from prep.codecs.pretrained import PRETRAINED
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
    with pytest.raises(
        CodecError, match=r"codec 'opus' is unknown; there are causal, .* encodec=FOLDER, mimi=FOLDER, dac"
    ):
        load_codec("opus")
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
    for name, config, reason in (
        ("zero", '{"feature_hop": 0}', "zero"),
        ("less", "{}", r"Missing key.*wave_in.weight"),
    ):
        save_file({"a": torch.zeros(1)}, tmp_path / name, {"codec": "causal", "config": config})
        with pytest.raises(CodecError, match=rf"{name} cannot be loaded \(.*{reason}"):
            load_codec(f"causal={tmp_path / name}")


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


@pytest.mark.parametrize("name", PRETRAINED)
def test_files_that_are_not_there_are_told_with_where_they_are(name: str, tmp_path: Path) -> None:
    """Before the package is missed, or imported."""
    source = PRETRAINED[name]
    where = f"Fetch {' and '.join(source.files)} of https://huggingface.co/{source.repository} into one folder"
    names = [Path(file).name for file in source.files]
    with pytest.raises(CodecError, match=f"codec '{name}' names no folder .*{where} and name it: {name}=FOLDER"):
        load_codec(name)
    with pytest.raises(CodecError, match=f"gone is no folder that holds {' and '.join(names)}.*{where}"):
        load_codec(f"{name}={tmp_path / 'gone'}")
    for file in names:
        with pytest.raises(CodecError, match=f"{file} does not exist. {where}"):
            load_codec(f"{name}={tmp_path}")
        (tmp_path / file).write_bytes(b"{}")


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_package_that_is_not_there_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in PRETRAINED[name].files:
        (tmp_path / Path(file).name).write_bytes(b"{}")
    for package in ("transformers", "diffusers", "codicodec"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"prep.codecs.{name}", raising=False)
    with pytest.raises(CodecError, match=rf"codec '{name}' needs a package .*pip install 'greenroom\[{name}\]'"):
        load_codec(f"{name}={tmp_path}")


def test_no_adapter_is_imported_before_it_is_used() -> None:
    code = "import sys, prep.codecs, prep.cli\nprint({'transformers', 'diffusers', 'codicodec'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_each_extra_is_one_of_the_package() -> None:
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert set(PRETRAINED) <= set(settings["project"]["optional-dependencies"])
