"""The crops that the codec is trained on: mixes as they are, and fresh sums of stems, with effects.

Crop number i is a pure function of the songs and (seed, i).
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from train.codec import effects
from train.codec.recipe import CodecRecipe
from train.codec.songs import Audio, Song, read_stereo

MOST_STEMS = 12
SPEED = 1.25  # and its inverse


def draw_crop(songs: list[Song], samples: int, seed: int, index: int) -> Audio:
    """(2, samples) at a drawn level between -36 and -12 dBFS RMS."""
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    song = songs[rng.integers(len(songs))]
    ratio = float(SPEED ** rng.uniform(-1, 1)) if rng.random() < 0.3 else 1.0
    wanted = math.ceil(samples * ratio)
    if rng.random() < 0.4 or not song.stems:
        audio = _read(song, None, wanted, rng.random())
    else:
        audio = _sum_of_stems(songs, song, wanted, rng)
    if ratio != 1:
        audio = effects.change_speed(audio, ratio, samples, song.rate)
    audio = _with_effects(audio, song.rate, rng)
    rms = float(np.sqrt(np.mean(audio**2)))
    return np.ascontiguousarray(audio * np.float32(10 ** (rng.uniform(-36, -12) / 20) / max(rms, 1e-3)))


def _sum_of_stems(songs: list[Song], song: Song, samples: int, rng: np.random.Generator) -> Audio:
    """1 to 12 stems, each at its own gain and place: of the song, and where it has too few, of another one as well."""
    audio = np.zeros((2, samples), np.float32)
    place, missing = rng.random(), int(rng.integers(1, MOST_STEMS + 1))
    for source in (song, songs[rng.integers(len(songs))]):
        taken = rng.permutation(len(source.stems))[:missing]
        missing -= len(taken)
        for stem in taken:
            gain = np.float32(10 ** (rng.uniform(-6, 6) / 20))
            audio += gain * effects.pan(_read(source, int(stem), samples, place), rng)
    return audio


def _read(song: Song, stem: int | None, samples: int, place: float) -> Audio:
    """From `place` (0 to 1) of the song; zeros where it ends before."""
    start = int(place * max(0, song.samples - samples))
    audio = read_stereo(song.mix if stem is None else song.stems[stem], start, samples)
    return np.pad(audio, ((0, 0), (0, samples - audio.shape[1])))


def _with_effects(audio: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """Of three crops one keeps its sound."""
    if rng.random() < 0.3:
        audio = effects.equalise(audio, rng, rate)
    if rng.random() < 0.15:
        audio = effects.soft_clip(audio, rng)
    if rng.random() < 0.2:
        audio = effects.reverberate(audio, rng, rate)
    if rng.random() < 0.3:
        audio = effects.widen(audio, rng)
    if rng.random() < 0.25:
        audio = np.broadcast_to(audio.mean(0), audio.shape)
    return audio[::-1] if rng.random() < 0.5 else audio


def batches(songs: list[Song], recipe: CodecRecipe, samples: int, steps: range, ahead: int = 8) -> Iterator[Tensor]:
    """(B, 2, samples) for each step, drawn one thread ahead."""
    ready: queue.Queue[Tensor | BaseException] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: Tensor | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def draw() -> None:
        try:
            for step in steps:
                first = step * recipe.batch
                crops = [draw_crop(songs, samples, recipe.seed, first + i) for i in range(recipe.batch)]
                put(torch.stack([torch.from_numpy(crop) for crop in crops]))
                if stop.is_set():
                    return
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        for _ in steps:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()  # a process that ends while libraries resample in it is aborted
