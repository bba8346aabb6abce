"""From a codec's name, or a checkpoint, to a codec that is ready to encode."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prep.codecs.causal import CausalCodec, CausalConfig
from prep.codecs.pretrained import PRETRAINED, CodecError, load_pretrained
from prep.codecs.protocol import Codec

SHIPPED = Path(__file__).parent / "weights" / "causal.safetensors"


def load_codec(spec: str = "causal", device: str = "cpu") -> Codec:
    """`causal` (the weights of this package) or `causal=FILE.safetensors`; in eval mode, without gradients.
    `causal@bfloat16`, with or without a file, encodes in that dtype, which is faster on a GPU.

    `encodec=FOLDER`, and so `mimi`, `dac`, `oobleck`, `codicodec`: a codec of others, from files fetched into FOLDER.
    `encodec@tokens=FOLDER` gives its tokens.

    Raises CodecError where the name, the file, its content or the package that it takes is wrong.
    """
    named, _, checkpoint = spec.partition("=")
    name, _, option = named.partition("@")
    if name in PRETRAINED:
        return load_pretrained(PRETRAINED[name], spec, option, checkpoint, device)
    if name != "causal":
        raise CodecError(
            f"codec {name!r} is unknown; there are causal, causal=FILE.safetensors for weights of yours, "
            f"and {', '.join(f'{each}=FOLDER' for each in PRETRAINED)}."
        )
    if option not in ("", "float32", "bfloat16"):
        raise CodecError(f"codec {spec!r} asks for dtype {option!r}; there are float32 (the default) and bfloat16.")
    codec = load_causal(Path(checkpoint) if checkpoint else SHIPPED)
    codec.dtype = torch.bfloat16 if option == "bfloat16" else torch.float32
    return codec.to(device).freeze()


def load_causal(path: Path) -> CausalCodec:
    """Not yet frozen. Raises CodecError."""
    if not path.is_file():
        raise CodecError(
            f"codec weights {path} do not exist. Train them: train codec configs/codec.yaml --data CORPUS."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).float() for name in names}
        codec = CausalCodec(_config(metadata))
        codec.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = shorten(str(error), 160, placeholder=" …")  # of tensors that do not fit, the first
        raise CodecError(f"codec weights {path} cannot be loaded ({reason}). Fetch or train them again.") from error
    if bad := [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise CodecError(f"codec weights {path} hold NaN or infinity in {bad[0]}. Train them again.")
    return codec


def save_codec(codec: CausalCodec, path: Path) -> None:
    """Write the weights as float16 beside their place and rename; the architecture goes into the file's metadata."""
    tensors = {key: tensor.detach().cpu().half().contiguous() for key, tensor in codec.state_dict().items()}
    beside = path.with_suffix(".partial")
    save_file(tensors, beside, {"codec": "causal", "config": json.dumps(asdict(codec.config))})
    beside.chmod(0o644)  # safetensors keeps its files to the owner
    beside.replace(path)


def _config(metadata: dict[str, str]) -> CausalConfig:
    if metadata.get("codec") != "causal":
        raise ValueError("its metadata does not say codec: causal")
    settings = json.loads(metadata["config"])
    known = {field.name for field in fields(CausalConfig)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"its architecture has settings that this version does not know: {unknown}")
    return CausalConfig(**settings)
