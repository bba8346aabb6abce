"""How far decoded audio is from the original: the distances that the codec is trained on and judged by.

Log-mel distance alone rewards a vocoder that keeps no waveform, SI-SDR alone a low-pass: only both count.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio.functional as taf
from torch import Tensor


@lru_cache(maxsize=8)
def _mel_filters(n_fft: int, mels: int, rate: int) -> Tensor:
    return taf.melscale_fbanks(n_fft // 2 + 1, 0.0, rate / 2, mels, rate, norm=None, mel_scale="htk")


def magnitudes(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """(..., samples) -> (n, frames, bins) of a Hann STFT."""
    window = torch.hann_window(n_fft, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    return torch.stft(flat, n_fft, hop, window=window, center=True, return_complex=True).abs().transpose(1, 2)


def log_mel(audio: Tensor, rate: int, n_fft: int = 2048, hop: int = 512, mels: int = 80, floor: float = 1e-5) -> Tensor:
    """log10 of mel magnitudes (HTK scale, unnormalised triangles, 0 Hz to Nyquist), floored: (n, frames, mels)."""
    mel = magnitudes(audio, n_fft, hop) @ _mel_filters(n_fft, mels, rate).to(audio.device)
    return torch.log10(mel.clamp_min(floor))


def log_mel_distance(
    audio: Tensor, decoded: Tensor, rate: int, n_fft: int = 2048, hop: int = 512, mels: int = 80, floor: float = 1e-5
) -> Tensor:
    """Mean |difference of log10 mel|, a scalar; both (..., samples)."""
    a, b = (log_mel(x, rate, n_fft, hop, mels, floor) for x in (audio, decoded))
    return (a - b).abs().mean()


def stft_distance(audio: Tensor, decoded: Tensor, floor: float = 1e-4) -> Tensor:
    """Multi-resolution STFT distance, a scalar; both (..., samples).

    Mean over Hann windows of 512, 1024 and 2048 samples, a quarter apart, of spectral convergence (the norm of the
    magnitudes' difference over that of the original's) plus the mean |difference of the natural log magnitudes|,
    floored (Yamamoto et al. 2020).
    """
    distances = []
    for n_fft in (512, 1024, 2048):
        a, b = (magnitudes(x, n_fft, n_fft // 4) for x in (audio, decoded))
        convergence = (a - b).norm() / a.norm().clamp_min(1e-9)
        distances.append(convergence + (a.clamp_min(floor).log() - b.clamp_min(floor).log()).abs().mean())
    return torch.stack(distances).mean()


def low_pass(audio: Tensor, rate: int, below_hz: float) -> Tensor:
    """Without the bins of the whole (..., samples) from `below_hz` on."""
    spectrum = torch.fft.rfft(audio)
    spectrum[..., -(-int(below_hz) * audio.shape[-1] // rate) :] = 0
    return torch.fft.irfft(spectrum, n=audio.shape[-1])


def si_sdr_db(audio: Tensor, decoded: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio over all channels at once (Le Roux et al. 2019), in dB: a scalar."""
    x, y = audio.flatten().double(), decoded.flatten().double()
    target = (x @ y) / (x @ x).clamp_min(1e-12) * x
    return 10 * torch.log10(((target @ target) + 1e-12) / (((y - target) @ (y - target)) + 1e-12))


def low_band_error(
    audio: Tensor, decoded: Tensor, rate: int, below_hz: float, n_fft: int = 2048, hop: int = 512
) -> Tensor:
    """Energy of the error over energy of the signal, both below `below_hz`, a clip: (B, channels, samples) -> (B,).

    Above, phase cannot be kept, and punishing its error would only silence what should sound.
    """
    window = torch.hann_window(n_fft, device=audio.device)
    bins = round(below_hz * n_fft / rate)

    def energy(x: Tensor) -> Tensor:
        spectra = torch.stft(x.flatten(0, 1), n_fft, hop, window=window, return_complex=True)[:, :bins]
        return spectra.abs().square().unflatten(0, x.shape[:2]).sum((1, 2, 3))

    return energy(audio - decoded) / energy(audio).clamp_min(1e-2)
