"""Something to hear while it learns: a few fixed validation pairs, the mix, the target, and what is played just now.

RUN/listen has each pair's mix and target, which stay the same, as WAV; RUN/listen/STEP what was played at that step,
and a PNG of all three. All of it is decoded from latents, so that the codec is not what one hears the difference of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import soundfile
import torch
import torchaudio.functional as taf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from prep.codecs import Codec
from shards import Dataset
from train.batches import Pairs, Scale
from train.curves import Curves
from train.errors import RunError
from train.generator import Generator
from train.sound import Audio
from train.validation import Pair, find_pairs, generate

N_FFT, HOP, MELS, RANGE_DB = 2048, 512, 128, 80.0
PARTS = ("mix", "target", "played")


@dataclass(frozen=True)
class Listening:
    codec: Codec
    rate: int
    scales: tuple[Scale, Scale]
    classes: list[str]
    pairs: list[Pair]

    @classmethod
    def of(cls, dataset: Dataset, training: Pairs, codec: Codec, most: int = 4, seconds: float = 10.0) -> Self:
        """At most `most` pairs of the validation split, or of the training split where there is no other.

        Raises RunError where the codec is not the dataset's, DataError where there is no pair so long.
        """
        identity = codec.identity
        if identity.to_json() != dataset.codec:
            raise RunError(
                f"the dataset's codec {dataset.codec['name']} is not the one to listen with; set loop.listen_every to 0"
            )
        split = "validation" if "validation" in dataset.splits else "train"
        frames = max(1, round(seconds * identity.frame_rate))
        pairs = find_pairs(dataset, split, training.config.batches, frames, most)
        scales = training.mix_scale, training.target_scale
        return cls(codec, identity.sample_rate, scales, list(dataset.classes), pairs)

    def write(self, generator: Generator, run: Path, step: int, curves: Curves) -> Path:
        """What `generator` plays after `step` finished steps; the folder that it was written to."""
        folder = run / "listen" / f"{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, latents in enumerate(generate(generator, self.scales, self.pairs, self.classes)):
            pair, real = self.pairs[number], folder.parent
            name = f"{number}-{pair.song}-{pair.instrument.lower().replace(' ', '-')}"
            sounds = [self._decoded(torch.from_numpy(x).float()) for x in (pair.beside, pair.target)]
            sounds.append(self._decoded(latents))
            for part, sound, place in zip(PARTS, sounds, (real, real, folder), strict=True):
                _write(place / f"{name}-{part}.wav", sound, self.rate)
            image = draw(dict(zip(PARTS, sounds, strict=True)), self.rate, folder / f"{name}.png")
            curves.show(name, step, dict(zip(PARTS, sounds, strict=True)), self.rate, image)
        return folder

    @torch.inference_mode()
    def _decoded(self, latents: Tensor) -> Audio:
        return np.asarray(self.codec.decode(latents[None])[0].numpy())


def _write(path: Path, audio: Audio, rate: int) -> None:
    """Attenuated, where it is over full scale. Raises RunError."""
    try:
        soundfile.write(path, audio.T / max(1.0, float(np.abs(audio).max(initial=0.0))), rate, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise RunError(f"{path} cannot be written ({error.error_string}): is the disk full?") from None


def draw(sounds: dict[str, Audio], rate: int, path: Path) -> NDArray[np.uint8]:
    """Mel spectrograms one below the other, in dB of one scale, as a PNG; and its pixels (height, width, 3)."""
    mels = {name: mel_db(audio, rate) for name, audio in sounds.items()}
    top = max(float(mel.max()) for mel in mels.values())
    figure = Figure(figsize=(10, 2.2 * len(mels)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for row, (name, mel) in enumerate(mels.items(), start=1):
        axes = figure.add_subplot(len(mels), 1, row)
        extent = (0.0, mel.shape[1] * HOP / rate, 0.0, float(MELS))
        axes.imshow(mel, origin="lower", aspect="auto", vmin=top - RANGE_DB, vmax=top, cmap="magma", extent=extent)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylabel("mel band")
    axes.set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def mel_db(audio: Audio, rate: int) -> NDArray[np.float32]:
    """(MELS, frames) of the channels' mean, floored at -120 dB."""
    mono, window = torch.from_numpy(np.ascontiguousarray(audio.mean(axis=0))), torch.hann_window(N_FFT)
    spectra = torch.stft(mono, N_FFT, HOP, window=window, return_complex=True).abs()
    mel = taf.melscale_fbanks(N_FFT // 2 + 1, 30.0, rate / 2, MELS, rate).T @ spectra
    return np.asarray((20 * torch.log10(mel.clamp_min(1e-6))).numpy())
