"""Where the codec starts: principal components of the waveform and of log-mel features, as linear maps both ways."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from prep.codecs import CausalCodec

# A spectrum of random phase and magnitude A, windowed and overlapped by half, is analysed as 0.53 A (Hann, N samples:
# sqrt(2 * 3/8 / N) * sqrt(3/8 * N))
SYNTHESIS_GAIN = 1 / 0.53033


# Well above the 430 Hz that 80 real numbers a frame can follow
LOW_HZ = 1000.0


def components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors (width, count) of (n, width), and each one's RMS over the rows (count,)."""
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    _, singular, basis = torch.svd_lowrank(rows, q=min(count + 16, *rows.shape), niter=4)
    torch.random.set_rng_state(state)
    return basis[:, :count], (singular[:count] / math.sqrt(len(rows))).clamp_min(1e-4)


@torch.no_grad()
def start_from_components(codec: CausalCodec, audio: Tensor) -> None:
    """Set both linear halves from `audio` (B, 2, samples); every number of the latent then has unit variance on it.

    On the processor: the same start, whatever trains then."""
    c = codec.config
    mid_side = torch.stack([audio[:, 0] + audio[:, 1], audio[:, 0] - audio[:, 1]], dim=1) / 2
    _start_wave(codec, mid_side)
    past = codec.encode_state(len(mid_side))[0]
    features = codec.features(torch.cat([past, mid_side], dim=2)).flatten(0, 1)
    mean = features.mean(0)
    basis, scale = components(features - mean, c.envelope_dim)
    codec.envelope_in.weight.copy_((basis / scale).T)
    codec.envelope_in.bias.copy_(-(basis / scale).T @ mean)
    matrix, areas = _interpolation(codec)
    # what turns a band's level into a bin's natural log-magnitude
    offset = math.log(SYNTHESIS_GAIN) - math.log(10) * (1 + matrix @ areas)
    shape = (c.hop // c.feature_hop, 2, c.mels, -1)
    weight, bias = (basis * scale).view(shape), mean.view(shape)
    heard = _window_heard(codec)
    to_log = math.log(10) * matrix
    codec.envelope_out.weight.copy_(torch.einsum("fm,wcmk->wcfk", to_log, weight[heard]).flatten(0, 2))
    codec.envelope_out.bias.copy_((torch.einsum("fm,wcmk->wcf", to_log, bias[heard]) + offset).flatten())
    _quiet_where_linear(codec)


def _start_wave(codec: CausalCodec, mid_side: Tensor) -> None:
    """Principal components of the low-passed frames, cross-faded into what each frame predicts of the next one's start.

    Without the low-pass the components carry traces of single songs' treble, and without the fade the frames' edges
    click: both drown what is quiet above the linear half's band.
    """
    c = codec.config
    spectrum = torch.fft.rfft(mid_side)
    hertz = torch.arange(spectrum.shape[-1]) * (c.sample_rate / mid_side.shape[-1])
    mid_side = torch.fft.irfft(spectrum * torch.sigmoid((LOW_HZ - hertz) / 30), n=mid_side.shape[-1])
    frames = mid_side.unfold(2, c.hop, c.hop).transpose(1, 2)  # (B, T, C, hop)
    basis, scale = components(frames.flatten(2).flatten(0, 1), c.wave_dim)
    codec.wave_in.weight.copy_((basis / scale).T)
    latents = codec.wave_in(frames.flatten(2))[:, :-1].flatten(0, 1)
    following = frames[:, 1:, :, : c.tail].flatten(2).flatten(0, 1)
    # the latents are all but uncorrelated, so normal equations do; lstsq rounds differently from call to call
    predicted = torch.linalg.solve(latents.T @ latents, latents.T @ following).T.reshape(2, c.tail, c.wave_dim)
    kernels = codec.wave_out.weight.view(2, c.hop + c.tail, c.wave_dim)
    kernels[:, : c.hop] = (basis * scale).view(2, c.hop, c.wave_dim)
    fade = torch.sin(torch.linspace(0, math.pi / 2, c.tail)).square()[:, None]
    kernels[:, : c.tail] *= fade
    kernels[:, c.hop :] = predicted * (1 - fade)


def _window_heard(codec: CausalCodec) -> list[int]:
    """For each synthesis window the analysis window of this frame whose centre is nearest."""
    c = codec.config
    centres = np.arange(1, c.hop // c.feature_hop + 1) * c.feature_hop - c.n_fft // 2
    wanted = np.arange(c.hop // c.sub_hop) * c.sub_hop + c.n_fft // 2
    return [int(np.abs(centres - centre).argmin()) for centre in wanted]


def _interpolation(codec: CausalCodec) -> tuple[Tensor, Tensor]:
    """(F, mels) from band to bin, linear in frequency between band centres, and the bands' log10 areas (mels,)."""
    mel = codec.mel.double().numpy()
    area = mel.sum(0)
    bins = np.arange(len(mel))
    used = np.flatnonzero(area > 0)
    centres = (bins[:, None] * mel).sum(0)[used] / area[used]
    matrix = np.zeros((len(mel), mel.shape[1]))
    for column, band in enumerate(used):
        matrix[:, band] = np.interp(bins, centres, np.eye(len(used))[column])
    areas = np.zeros(mel.shape[1])
    areas[used] = np.log10(area[used])
    return torch.from_numpy(matrix).float(), torch.from_numpy(areas).float()


def _quiet_where_linear(codec: CausalCodec) -> None:
    """No noise at first where the linear half has the waveform: the gate opens over the bins that it cannot reach."""
    c = codec.config
    reach = c.wave_dim / 2 / (c.hop / c.n_fft)  # wave_dim real numbers a frame resolve wave_dim / 2 cycles a frame
    opening = (torch.arange(c.phase_bins) - 1.5 * reach) / (0.25 * reach)
    gate = codec.phase.bias.zero_().view(2, 3, c.phase_bins)
    gate[:, 0] = opening.clamp(-4, 4)
    codec.phase.weight.mul_(0.1)
