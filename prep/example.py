"""One example from its plan: read the stems, sum the mixes, measure, encode. Runs in a worker, alone."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shards
from prep.audio import content_digest
from prep.codecs import Codec, load_codec
from prep.config import PrepConfig
from prep.errors import PrepError, Reject
from prep.plan import PlanRow
from prep.scan import Target, load_stem
from prep.stages.activity import levels_db
from prep.stages.loudness import SILENCE_LUFS, integrated_lufs
from prep.stages.mixing import mix_audio, mix_gain_db

# frames a call of the codec: part of an encoding's identity, since float sums depend on shapes
STRETCH_FRAMES = 64


@dataclass(frozen=True)
class Built:
    """An example, the seconds of audio in its stems and in all its streams, and the seconds that each stage took."""

    example: shards.Example
    stem_s: float
    stream_s: float
    seconds: dict[str, float]


def build_example(row: PlanRow, root: Path, config: PrepConfig, target: Target) -> Built:
    """Read the stems, sum the mixes, measure and encode every stream. Raises PrepError when a source has changed."""
    clock = _Clock()
    stems = [_read(root / path, digest, row, target) for path, digest in zip(row.paths, row.digests, strict=True)]
    clock.lap("read")
    codec = _codec(config.codec)
    frames = math.ceil(row.samples / codec.identity.hop)
    gains, loudness = list(row.gains_db), list(row.loudness_lufs)
    levels, latents = [], []
    singles = tuple((i,) for i in range(len(stems)))
    for number, members in enumerate(singles + row.mixes):
        stream = mix_audio(stems, row.gains_db, members)
        if number >= len(stems):
            offset = row.offsets_db[number - len(stems)]
            measured, peak = integrated_lufs(stream, target.rate), float(np.abs(stream).max())
            gain = mix_gain_db(measured, peak, config.loudness.mix_lufs, offset, config.loudness.ceiling_db)
            stream *= np.float32(10 ** (gain / 20))
            gains.append(gain)
            loudness.append(max(SILENCE_LUFS, measured + gain))
        clock.lap("mix")
        levels.append(levels_db(stream, target.rate))
        clock.lap("levels")
        latents.append(encode_stream(codec, stream))
        clock.lap("encode")
    streams = np.stack(latents).astype(np.float16)
    if not np.isfinite(streams).all() or streams.shape[1] != frames:
        raise PrepError(f"{row.id}: the codec gave latents of shape {streams.shape} or not finite. Certify the codec.")
    meta = _meta(row, gains, loudness, frames, len(levels[0]))
    sources = dict(zip(row.stems, row.digests, strict=True))
    n, length_s = len(stems), row.samples / target.rate
    example = shards.Example(row.id, meta, streams[:n], streams[n:], np.stack(levels).astype(np.float16), sources)
    return Built(example, n * length_s, len(streams) * length_s, clock.seconds)


def _meta(row: PlanRow, gains: list[float], loudness: list[float], frames: int, levels_frames: int) -> dict[str, Any]:
    """The example's json: every key always there, with one type."""
    return {
        "id": row.id,
        "split": row.split,
        "corpus": row.corpus,
        "licence": row.licence,
        "n_stems": len(row.stems),
        "n_mixes": len(row.mixes),
        "frames": frames,
        "samples": row.samples,
        "levels_frames": levels_frames,
        "stems": list(row.stems),
        "programs": list(row.programs),
        "instruments": list(row.instruments),
        "members": [[i] for i in range(len(row.stems))] + [list(members) for members in row.mixes],
        "gains_db": [float(gain) for gain in gains],
        "loudness_lufs": [float(value) for value in loudness],
    }


def encode_stream(codec: Codec, audio: np.ndarray) -> np.ndarray:
    """(channels, samples) -> (frames, dim), in stretches of STRETCH_FRAMES with the codec's state between them."""
    hop = codec.identity.hop
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % hop)))
    state, latents = codec.encode_state(1), []
    with torch.inference_mode():
        for start in range(0, padded.shape[1], STRETCH_FRAMES * hop):
            stretch = torch.from_numpy(padded[None, :, start : start + STRETCH_FRAMES * hop])
            out, state = codec.encode_step(stretch, state)
            latents.append(out[0].numpy())
    return np.concatenate(latents)


@lru_cache(maxsize=2)
def _codec(spec: str) -> Codec:
    return load_codec(spec)


def _read(path: Path, digest: str, row: PlanRow, target: Target) -> np.ndarray:
    """(channels, row.samples) of the very file that was scanned; shorter stems are padded with silence."""
    loaded = load_stem(path, target)
    if isinstance(loaded, Reject) or content_digest(path) != digest:
        what = loaded.reason if isinstance(loaded, Reject) else "other content"
        raise PrepError(f"{path} has changed since it was scanned ({what}). Run the same build again.")
    audio = loaded[0]
    return np.pad(audio, ((0, 0), (0, row.samples - audio.shape[1])))


class _Clock:
    """Seconds a stage, from lap to lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
