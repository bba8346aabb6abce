"""Builds of small corpora, for the tests of the build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prep.build import build
from prep.codecs import Codec
from prep.codecs.streams import STRETCH_FRAMES
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.draft import Corpus
from prep.report import Report
from prep.sources.slakh import read_slakh


def here(function: Callable[[Any], Any], items: Sequence[Any], *_: Any, **__: Any) -> Iterator[Any]:
    """In place of `local`, for tests that reach into the work: no worker process, the caller's."""
    return map(function, items)


def work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("draft", "render", "certified"):
        monkeypatch.setattr(f"prep.{module}.local", here)


def corpus_at(root: Path) -> Corpus:
    multitracks, rejects = read_slakh(root)
    return Corpus("slakh", root, multitracks, rejects)


def run(
    root: Path, out: Path, codec: str, workers: int = 1, rescan: bool = False, device: Device = CPU, **settings: Any
) -> Report:
    config = PrepConfig(codec=codec, **settings)
    return build(corpus_at(root), out, config, workers, progress=False, rescan=rescan, device=device)


def encode(codec: Codec, audio: np.ndarray) -> np.ndarray:
    """(channels, samples) -> (frames, dim), stretch by stretch as a build does."""
    hop = codec.identity.hop
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % hop)))
    state, latents = codec.encode_state(1), []
    with torch.inference_mode():
        for start in range(0, padded.shape[1], STRETCH_FRAMES * hop):
            stretch = torch.from_numpy(padded[None, :, start : start + STRETCH_FRAMES * hop])
            out, state = codec.encode_step(stretch, state)
            latents.append(out[0].numpy())
    return np.concatenate(latents)


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("generations/*/*") if path.is_file()
    }
