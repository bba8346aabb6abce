"""Small networks with random weights for the adapters' tests: nothing is downloaded, and no test waits for long."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prep.certify import Certificate, Measurement, certify
from prep.codecs import Codec, CodecIdentity, load_codec
from prep.device import Device
from prep.encode import Stream, check_rows, encode
from prep.probes import made_audio
from tests.pretended import a_gpu


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that pass on what they hear about as loud as it is: many networks start too quiet to tell much."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        drawn = torch.randn(tensor.shape, generator=generator)
        inputs = tensor[:1].numel()
        if tensor.ndim > 1 and len(tensor) > 1 and inputs > 1:
            tensor.copy_(drawn / inputs**0.5)
        elif tensor.is_floating_point():
            tensor.add_(0.02 * drawn)
    return network.eval().requires_grad_(False)


def save_pretrained(folder: Path, settings: dict[str, object], tensors: dict[str, Tensor], weights: str) -> Path:
    """As a hub has it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / weights)
    return folder


def certified(codec: Codec) -> dict[str, Measurement]:
    """All that is measured on made audio, by name, as in another process; none of it may fail."""
    sent = pickle.loads(pickle.dumps(codec))
    certificate: Certificate = certify(sent, made_audio(codec.identity))
    assert not certificate.failed, "\n".join(certificate.lines())
    return {each.name: each for each in certificate.measurements}


def music(identity: CodecIdentity, frames: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Noise that swells and fades."""
    generator = torch.Generator().manual_seed(seed)
    samples = frames * identity.hop
    swell = 1 + torch.sin(torch.arange(samples) * 7.0 / identity.sample_rate)
    return 0.1 * torch.randn(batch, identity.channels, samples, generator=generator) * swell


def in_steps(codec: Codec, audio: Tensor, latents: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Latents and audio, `frames` a step."""
    hop, state, sounds = codec.identity.hop, codec.encode_state(len(audio)), codec.decode_state(len(audio))
    encoded, decoded = [], []
    for part in audio.split(frames * hop, 2):
        out, state = codec.encode_step(part, state)
        encoded.append(out)
    for part in latents.split(frames, 1):
        out, sounds = codec.decode_step(part, sounds)
        decoded.append(out)
    return torch.cat(encoded, 1), torch.cat(decoded, 2)


def choose(codebook: Tensor, vectors: Tensor, seed: int = 0) -> Tensor:
    """Fill a codebook (size, dim) from some of these (n, dim), so that tokens tell them apart; what then remains."""
    generator = torch.Generator().manual_seed(seed)
    chosen = vectors[torch.randint(len(vectors), (len(codebook),), generator=generator)]
    codebook.copy_(chosen + 0.5 * vectors.std(0) * torch.randn(chosen.shape, generator=generator))
    return vectors - codebook[torch.cdist(vectors, codebook).argmin(1)]


def in_company(codec: Codec, device: Device, frames: Sequence[int], seed: int = 0) -> list[tuple[Tensor, Stream]]:
    """Streams of so many frames each, of which the last is begun only, encoded together on `device`, side by side."""
    hop, stretch = codec.identity.hop, device.stretch_frames
    every = [music(codec.identity, n, seed=seed + k)[0, :, : n * hop - 1] for k, n in enumerate(frames)]
    streams = [Stream(np.full((n, codec.identity.dim), np.nan, np.float16)) for n in frames]
    pieces = (
        (streams[k], audio[:, at * hop : (at + stretch) * hop].numpy())
        for at in range(0, max(frames), stretch)
        for k, audio in enumerate(every)
        if at < frames[k]
    )
    encode(codec, pieces, lambda stage: None, device)
    return list(zip(every, streams, strict=True))


def check_company(codec: Codec) -> None:
    """Streams of many lengths in calls of four: each has the bytes that it has alone, and the whole's numbers."""
    device, frames = Device("cpu", 32, 4), (37, 9, 21, 1, 8, 30, 16)
    check_rows(codec, device)
    for k, (audio, stream) in enumerate(in_company(codec, device, frames)):
        [(_, alone)] = in_company(codec, device, frames[k : k + 1], k)
        np.testing.assert_array_equal(stream.latents, alone.latents)
        whole = codec.encode(audio[None])[0].detach().numpy()
        np.testing.assert_allclose(stream.latents, whole.astype(np.float16), atol=2e-3, rtol=2e-3)


def check_on_gpu(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that belongs on the GPU is there, and comes back with the processor's numbers."""
    codec = load_codec(spec)
    audio = music(codec.identity, 12, batch=2)
    with torch.no_grad():
        latents = codec.encode(audio)
        wanted = in_steps(codec, audio, latents, 4)
        with a_gpu(monkeypatch):
            there, given = load_codec(spec, "cuda"), (audio.to("cuda"), latents.to("cuda"))
            steps = in_steps(there, *given, 4)
            whole = there.encode(given[0]), there.decode(given[1])
            assert there.identity == codec.identity
            assert all(each.is_cuda for each in (*steps, *whole))
            found, ends = [each.cpu() for each in steps], [each.cpu() for each in whole]
        for one, other in zip([*found, *ends], [*wanted, latents, codec.decode(latents)], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
