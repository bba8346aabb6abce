"""Codecs of other makers, whose weights live on a hub: what to fetch and from where, and how it is read.

Nothing is ever fetched from here. Weights are read with safetensors, or torch.load(weights_only=True).
"""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prep.codecs.protocol import Codec
from prep.errors import PrepError


class CodecError(PrepError):
    """A codec that cannot be had: unknown, missing, or not what its file says."""


@dataclass(frozen=True)
class Pretrained:
    """A module prep.codecs.<name> that offers

    * `build(settings)`: the network that the settings describe; raises ValueError for one that it cannot adapt,
    * `adapt(network, option)`: the codec,
    * `OPTIONS`: what may follow `name@`; and, where names differ, `renamed(tensors)`: of the file, for the network.
    """

    name: str
    repository: str  # on huggingface.co
    files: tuple[str, ...]  # there; the weights come last

    def folder(self, spec: str, path: str) -> Path:
        """The one that holds the files. Raises CodecError where they are not all there, saying how to get them."""
        names = [Path(file).name for file in self.files]
        mend = (
            f"Fetch {' and '.join(self.files)} of https://huggingface.co/{self.repository} into one folder "
            f"and name it: {self.name}=FOLDER."
        )
        if not path:
            raise CodecError(f"codec {spec!r} names no folder with its pretrained weights. {mend}")
        if not Path(path).is_dir():
            raise CodecError(f"codec {spec!r}: {path} is no folder that holds {' and '.join(names)}. {mend}")
        if missing := [name for name in names if not (Path(path) / name).is_file()]:
            raise CodecError(f"codec {spec!r}: {Path(path) / missing[0]} does not exist. {mend}")
        return Path(path)

    def module(self) -> ModuleType:
        """Imports the package that the codec comes in. Raises CodecError where it is not installed."""
        try:
            return importlib.import_module(f"prep.codecs.{self.name}")
        except ImportError as error:
            raise CodecError(
                f"codec {self.name!r} needs a package that is not here ({error}): pip install 'greenroom[{self.name}]'"
            ) from error


HUB = ("config.json", "model.safetensors")
OOBLECK = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")
PRETRAINED = {
    each.name: each
    for each in (
        Pretrained("encodec", "facebook/encodec_24khz", HUB),
        Pretrained("mimi", "kyutai/mimi", HUB),
        Pretrained("dac", "descript/dac_44khz", HUB),
        Pretrained("oobleck", "stabilityai/stable-audio-open-1.0", OOBLECK),
        Pretrained("codicodec", "SonyCSLParis/codicodec", ("codicodec.pt",)),
    )
}


def load_pretrained(source: Pretrained, spec: str, option: str, path: str, device: str) -> Codec:
    """Ready to encode. Raises CodecError where option, files, package or content are wrong."""
    folder = source.folder(spec, path)
    module = source.module()
    if option not in ("", *module.OPTIONS):
        known = " and ".join(f"{source.name}@{each}" for each in module.OPTIONS)
        raise CodecError(f"codec {spec!r} asks for {option!r}; there is {source.name}{known and ' and ' + known}.")
    *settings, weights = (folder / Path(file).name for file in source.files)
    network: nn.Module = _built(module, settings[0] if settings else None)
    with _told(weights):
        tensors = _tensors(weights)
        _fit(network, module.renamed(tensors) if hasattr(module, "renamed") else tensors)
    codec: Codec = module.adapt(network.eval().requires_grad_(False).to(device), option)
    return codec


def _built(module: ModuleType, path: Path | None) -> nn.Module:
    if path is None:
        network: nn.Module = module.build({})
        return network
    with _told(path):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no JSON object")
        network = module.build(settings)
    return network


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    # what a network's maker raises for settings and weights that are not its own is anybody's guess
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CodecError(f"codec file {path} cannot be used ({reason}). Fetch it again.") from error


def _tensors(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"not safetensors, or cut short: {error}") from error
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"not tensors alone, or cut short: {error}") from error


def _fit(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Tensors that the network has no use for are left aside. Raises ValueError, or what torch raises."""
    missing = network.load_state_dict(tensors, strict=False).missing_keys
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing, the first is {missing[0]}")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"NaN or infinity in {name}")
