"""Spectrograms of clips, each original above what the codec made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from prep.codecs import CausalCodec
from shards.generations import atomic
from train.codec.corpora import Corpus
from train.codec.measures import magnitudes

SECONDS = 6.0
RANGE_DB = 80


def draw_spectrograms(codec: CausalCodec, corpora: list[Corpus], path: Path, clips: int = 3) -> None:
    """A PNG of 6 s from the middle of the first clip of each of the first corpora (mid channel, log frequency)."""
    from matplotlib.figure import Figure

    rate = codec.config.sample_rate
    shown = corpora[:clips]
    figure = Figure(figsize=(4 * len(shown), 5), dpi=64, layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey=True)
    for column, corpus in enumerate(shown):
        clip = corpus.clips[0].audio
        decoded = codec.decode(codec.encode(clip[None]))[0]
        start = max(0, clip.shape[1] // 2 - int(SECONDS * rate / 2))
        pair = [_level_db(x[:, start : start + int(SECONDS * rate)]) for x in (clip, decoded)]
        loudest = max(level.max() for level in pair)
        for row, (level, what) in enumerate(zip(pair, ("original", "decoded"), strict=True)):
            seconds, kilohertz = np.linspace(0, SECONDS, level.shape[1]), np.arange(len(level)) * rate / 2048 / 1000
            ax = axes[row][column]
            ax.pcolormesh(seconds, kilohertz[3:], level[3:], vmin=loudest - RANGE_DB, vmax=loudest, rasterized=True)
            ax.set(yscale="log", title=f"{corpus.label}: {what}", ylabel="" if column else "kHz")
    axes[0][0].set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    for ax in axes[1]:
        ax.set_xlabel("s")
    with atomic(path) as file:
        figure.savefig(file, format="png")


def _level_db(audio: Tensor) -> np.ndarray:
    """(bins, frames), a column of at most about 300."""
    level = magnitudes(audio.mean(0, keepdim=True), 2048, 1024)[0].T.numpy()
    return 20 * np.log10(np.maximum(level, 1e-5))
