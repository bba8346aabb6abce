"""Spectrograms of audio files, one below the other, on one time axis and one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr
import torch
import torchaudio.functional as taf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prep.audio import read_audio
from prep.errors import PrepError, Reject

RATE = 44100
N_FFT, HOP, MELS = 2048, 512, 128
RANGE_DB = 80.0


def draw_spectrograms(paths: list[Path], out: Path, start_s: float = 0.0, length_s: float = 20.0) -> Path:
    """A PNG of mel spectrograms (dB, the loudest is 0) of up to `length_s` from `start_s` on. Raises PrepError."""
    if out.suffix.lower() != ".png":
        raise PrepError(f"--out {out} must end in .png.")
    mels = [_mel_db(path, start_s, length_s) for path in paths]
    top = max(float(mel.max()) for mel in mels)
    figure = Figure(figsize=(10, 2.2 * len(paths)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, (path, mel) in enumerate(zip(paths, mels, strict=True)):
        axes = figure.add_subplot(len(paths), 1, row + 1)
        end_s = start_s + mel.shape[1] * HOP / RATE
        axes.imshow(
            mel,
            origin="lower",
            aspect="auto",
            vmin=top - RANGE_DB,
            vmax=top,
            cmap="magma",
            extent=(start_s, end_s, 0, MELS),
        )
        axes.set_xlim(start_s, start_s + length_s)
        axes.set_title(path.stem, fontsize=9, loc="left")
        axes.set_ylabel("mel band")
        if row + 1 == len(paths):
            axes.set_xlabel("seconds")
    figure.savefig(out, dpi=100)
    return out


def _mel_db(path: Path, start_s: float, length_s: float) -> NDArray[np.float32]:
    """(mels, frames)."""
    read = read_audio(path)
    if isinstance(read, Reject):
        raise PrepError(f"{path}: {read.reason} ({read.detail}). Name audio files that can be read.")
    mono = soxr.resample(read[0].mean(0), read[1], RATE)[int(start_s * RATE) : int((start_s + length_s) * RATE)]
    if len(mono) < N_FFT:
        raise PrepError(f"{path} is shorter than {start_s + N_FFT / RATE:.2f} s. Choose an earlier --start.")
    spectra = torch.stft(torch.from_numpy(mono), N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True).abs()
    mel = taf.melscale_fbanks(N_FFT // 2 + 1, 30.0, RATE / 2, MELS, RATE).T @ spectra
    return np.asarray((20 * torch.log10(mel.clamp_min(1e-6))).numpy())
