"""How well two sounds go together that sound at once: in their harmony, and in when something begins.

Both are correlations: 1 is alike, 0 what chance gives, and a part that is silent agrees with nothing. They rank an
accompaniment for its own mix above one for another; they say nothing of how good either sounds.
"""

from __future__ import annotations

import numpy as np
import torch
import torchaudio.functional as taf
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from train.sound import Audio

QUIET = 1e-3  # -60 dB of the loudest
CHROMA_FFT_S, CHROMA_HOP_S = 0.37, 0.09  # a semitone apart can be told from 160 Hz on
CHROMA_HZ = (60.0, 2000.0)
CHROMA_SMOOTH_S = 1.0  # about a bar's half: notes of a chord need not sound at once
ONSET_FFT_S, ONSET_HOP_S = 0.046, 0.0116
ONSET_SMOOTH_S, ONSET_AROUND_S = 0.03, 0.5
ONSET_MELS = 40


def chroma_agreement(a: Audio, b: Audio, rate: int) -> float:
    """The mean correlation of the two's chroma, each twelve numbers, over the moments at which both sound.

    Both (channels, samples), of one length and time.
    """
    one, other = (_unit(_chroma(each, rate)) for each in (a, b))
    both = one.any(axis=0) & other.any(axis=0)
    return float((one * other).sum(axis=0)[both].mean()) if both.any() else 0.0


def onset_agreement(a: Audio, b: Audio, rate: int) -> float:
    """The correlation over time of how much begins in the one and in the other, to within some 30 ms."""
    one, other = (_unit(_onsets(each, rate)) for each in (a, b))
    return float(one @ other)


def _chroma(audio: Audio, rate: int) -> NDArray[np.float64]:
    """(12, frames), each frame's mean taken off; zeros where it is quiet."""
    n_fft = round(CHROMA_FFT_S * rate)
    magnitudes = _magnitudes(audio, n_fft, round(CHROMA_HOP_S * rate))
    hz = np.arange(len(magnitudes)) * rate / n_fft
    kept = (hz >= CHROMA_HZ[0]) & (hz <= CHROMA_HZ[1])
    semitone = 12 * np.log2(hz[kept] / 440)
    folded = np.zeros((12, magnitudes.shape[1]))
    np.add.at(folded, np.rint(semitone).astype(int) % 12, np.sqrt(magnitudes[kept]))
    loud = magnitudes[kept].sum(axis=0)
    folded = folded - folded.mean(axis=0)
    folded = folded * (loud > QUIET * max(loud.max(), 1.0))
    return uniform_filter1d(folded, round(CHROMA_SMOOTH_S / CHROMA_HOP_S), axis=1)


def _onsets(audio: Audio, rate: int) -> NDArray[np.float64]:
    """(frames,): what rises in the mel bands, smoothed, less its mean around."""
    n_fft, hop = round(ONSET_FFT_S * rate), round(ONSET_HOP_S * rate)
    filters = taf.melscale_fbanks(n_fft // 2 + 1, 30.0, min(rate / 2, 16000.0), ONSET_MELS, rate).numpy()
    mel = np.log1p(100 * filters.T @ _magnitudes(audio, n_fft, hop))
    rising = np.maximum(np.diff(mel, axis=1), 0).sum(axis=0)
    smooth = gaussian_filter1d(rising, ONSET_SMOOTH_S / ONSET_HOP_S)
    return smooth - uniform_filter1d(smooth, round(ONSET_AROUND_S / ONSET_HOP_S))


def _magnitudes(audio: Audio, n_fft: int, hop: int) -> NDArray[np.float64]:
    """(bins, frames) of the channels' mean."""
    mono = torch.from_numpy(np.ascontiguousarray(audio.mean(axis=0)))
    spectra = torch.stft(mono, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    return np.asarray(spectra.abs().double().numpy())


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (or a vector) of length 1; what is nothing, but for rounding, is zeros."""
    norm = np.linalg.norm(x, axis=0)
    return x / np.where(norm > 1e-6, norm, np.inf)
