"""Greenroom's own causal codec: 44.1 kHz stereo, one latent of 128 numbers per 4096 samples, no delay beyond the frame.

A latent has two halves, because neither alone passes for music (a low-pass keeps the waveform and loses the sound, a
vocoder the other way round):

* `wave` (80 numbers): a linear projection of the frame, started from principal components. It carries the waveform
  of the lowest few hundred hertz, where most of the energy is.
* `envelope` (48 numbers): a projection of log-mel features, also started from principal components, that a causal
  ConvNeXt corrects. It carries what the rest sounds like.

The decoder adds two signals: the linear one, and spectra whose log-magnitudes are a projection of the envelope that a
causal ConvNeXt over the whole latent corrects. Their phase is predicted where it can be, and a fixed pseudo-random one
elsewhere. Every synthesis window *starts* inside its own frame and rings into the next, so decoded sample n depends on
nothing after the end of n's frame.

Whole and streamed run the same code: `encode` is `encode_step` from the zero state, in long stretches.
Axes: B batch, T frames, S sub-frames (1024 samples), C mid and side, F bins.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
import torchaudio.functional as taf
from torch import Tensor, nn

from prep.codecs.protocol import (
    CodecIdentity,
    State,
    check_audio,
    check_latents,
    digest_of_settings,
    digest_of_weights,
)
from prep.codecs.streams import STRETCH_FRAMES, in_steps

VERSION = 1  # raise it when the code below changes the numbers
ROUNDING = 2  # and this when it changes no more than their last bits: what was encoded before is as good, and stays
BOUND = 6.0  # of the envelope's numbers
MEL_FLOOR = 1e-3
WINDOWS = 128  # to transform at a time, which stay in a processor's cache; a GPU takes all
CEILING = 0.7  # RMS of a synthesis window: no music reaches it, and no latent, however wrong, may exceed it


@dataclass(frozen=True)
class CausalConfig:
    """The architecture; stored beside the weights."""

    sample_rate: int = 44100
    hop: int = 4096
    wave_dim: int = 80
    envelope_dim: int = 48
    mels: int = 80  # of the encoder's features, in windows of n_fft every feature_hop
    feature_hop: int = 512
    n_fft: int = 2048
    sub_hop: int = 1024  # between synthesis windows of n_fft
    tail: int = 256  # how far the linear decoder rings into the next frame
    phase_bins: int = 256  # below 5.5 kHz the decoder may predict phase
    encoder_width: int = 256
    encoder_blocks: int = 3
    decoder_width: int = 384
    decoder_blocks: int = 4
    sub_width: int = 256
    sub_blocks: int = 2
    kernel: int = 4
    noise_frames: int = 64  # the pseudo-random phases repeat after this many frames

    @property
    def dim(self) -> int:
        return self.wave_dim + self.envelope_dim


class CausalBlock(nn.Module):
    """ConvNeXt block over (B, T, width): depthwise causal convolution, norm, MLP, residual."""

    def __init__(self, width: int, kernel: int, expansion: int = 2) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """`past` (B, kernel-1, width) is the input just before x; the next past is handed back."""
        seen = torch.cat([past, x], dim=1)
        y = self.conv(seen.transpose(1, 2)).transpose(1, 2)
        y = self.down(F.gelu(self.up(self.norm(y))))
        return x + y, seen[:, seen.shape[1] - (self.kernel - 1) :]


def run_blocks(blocks: nn.ModuleList, x: Tensor, pasts: State) -> tuple[Tensor, State]:
    after = []
    for block, past in zip(blocks, pasts, strict=True):
        x, past = block(x, past)
        after.append(past)
    return x, tuple(after)


def overlap_add(windows: Tensor, hop: int, ringing: Tensor) -> tuple[Tensor, Tensor]:
    """Windows (B, C, K, hop + tail) laid `hop` apart, on top of what still rings (B, C, tail <= hop) from before.

    Returns (B, C, K * hop) and what rings on.
    """
    head, tail = windows[..., :hop], windows[..., hop:]
    tails = torch.cat([ringing.unsqueeze(2), tail], dim=2)
    carried = F.pad(tails[:, :, :-1], (0, hop - tail.shape[-1]))
    return (head + carried).flatten(2), tails[:, :, -1]


class CausalCodec(nn.Module):
    """See the module's text. `identity` needs the weights to be final: call it after loading."""

    convolutional = True  # not even NaN gets from the future into the past
    mel: Tensor
    window: Tensor

    def __init__(self, config: CausalConfig | None = None) -> None:
        super().__init__()
        self._frozen: CodecIdentity | None = None
        self.dtype = torch.float32  # in which the encoder's layers compute
        c = self.config = config or CausalConfig()
        self.wave_in = nn.Linear(2 * c.hop, c.wave_dim, bias=False)
        self.wave_out = nn.Linear(c.wave_dim, 2 * (c.hop + c.tail), bias=False)
        features = 2 * c.mels * (c.hop // c.feature_hop)
        self.envelope_in = nn.Linear(features, c.envelope_dim)
        self.feature_in = nn.Linear(features, c.encoder_width)
        self.encoder = nn.ModuleList(CausalBlock(c.encoder_width, c.kernel) for _ in range(c.encoder_blocks))
        self.feature_out = nn.Linear(c.encoder_width, c.envelope_dim)
        self.latent_in = nn.Linear(c.dim, c.decoder_width)
        self.decoder = nn.ModuleList(CausalBlock(c.decoder_width, c.kernel) for _ in range(c.decoder_blocks))
        self.to_sub = nn.Linear(c.decoder_width, c.sub_width * (c.hop // c.sub_hop))
        self.sub = nn.ModuleList(CausalBlock(c.sub_width, c.kernel) for _ in range(c.sub_blocks))
        self.sub_norm = nn.LayerNorm(c.sub_width)
        bins = c.n_fft // 2 + 1
        self.envelope_out = nn.Linear(c.envelope_dim, 2 * bins * (c.hop // c.sub_hop))
        self.magnitude = nn.Linear(c.sub_width, 2 * bins, bias=False)
        self.phase = nn.Linear(c.sub_width, 2 * 3 * c.phase_bins)  # per bin: share of noise, real, imaginary
        for layer in (self.feature_out, self.magnitude):  # corrections start at zero
            nn.init.zeros_(layer.weight)
        mel = taf.melscale_fbanks(bins, 20.0, c.sample_rate / 2, c.mels, c.sample_rate)
        self.register_buffer("mel", mel, persistent=False)
        self.register_buffer("window", torch.hann_window(c.n_fft), persistent=False)

    def encode_state(self, batch: int) -> State:
        """Silence before the first sample."""
        c = self.config
        pasts = [self.window.new_zeros(batch, c.kernel - 1, c.encoder_width) for _ in self.encoder]
        return (self.window.new_zeros(batch, 2, c.n_fft - c.feature_hop), *pasts)

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, 2, k * hop) -> (B, k, dim) float32 and the state after it."""
        self._check(audio, self.config.hop)
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            latents, state = self._encode(audio, state)
        return latents.float(), state

    def _encode(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        c = self.config
        mid_side = torch.stack([audio[:, 0] + audio[:, 1], audio[:, 0] - audio[:, 1]], dim=1) / 2
        frames = mid_side.unfold(2, c.hop, c.hop)  # (B, C, T, hop)
        wave = self.wave_in(frames.transpose(1, 2).flatten(2))
        seen = torch.cat([state[0], mid_side], dim=2)
        features = self.features(seen)
        hidden, pasts = run_blocks(self.encoder, self.feature_in(features), state[1:])
        envelope = BOUND * torch.tanh((self.envelope_in(features) + self.feature_out(hidden)) / BOUND)
        return torch.cat([wave, envelope], dim=2), (seen[:, :, seen.shape[2] - state[0].shape[2] :], *pasts)

    def features(self, seen: Tensor) -> Tensor:
        """Log-mel of every window that ends at a multiple of feature_hop: (B, C, samples) -> (B, T, features)."""
        c = self.config
        mel = torch.stack([self._mel(channel) for channel in seen.unbind(1)], 1)
        level = torch.log10(mel.clamp_min(MEL_FLOOR)) + 1
        per_frame = c.hop // c.feature_hop
        return level.unflatten(2, (-1, per_frame)).permute(0, 2, 3, 1, 4).flatten(2)

    def _mel(self, channel: Tensor) -> Tensor:
        """(B, samples) -> (B, windows, mels). A processor leaves out what is silent, such as the side of mono."""
        windows = channel.unfold(1, self.config.n_fft, self.config.feature_hop)
        if channel.device.type != "cpu":
            return self._mel_of(windows)
        if not any(channel.aminmax()):  # NaN is not silent
            return channel.new_zeros(*windows.shape[:2], self.config.mels)
        return torch.cat([self._mel_of(some) for some in windows.split(WINDOWS, 1)], 1)

    def _mel_of(self, windows: Tensor) -> Tensor:
        """abs() of complex numbers takes twice as long; 1e-30 keeps a gradient finite at silence."""
        spectra = torch.fft.rfft(windows * self.window)
        return (spectra.real.square() + spectra.imag.square() + 1e-30).sqrt() @ self.mel

    def encode(self, audio: Tensor) -> Tensor:
        """(B, 2, samples) -> (B, ceil(samples / hop), dim); the tail is padded with zeros."""
        check_audio(audio, 2)
        hop, empty = self.config.hop, audio.new_zeros(len(audio), 0, self.config.dim)
        whole = F.pad(audio, (0, -audio.shape[2] % hop))
        return in_steps(self.encode_step, self.encode_state(len(audio)), whole, 2, STRETCH_FRAMES * hop, empty)

    def decode_state(self, batch: int) -> State:
        """Nothing rings, and frame 0 comes next."""
        c = self.config
        pasts = [self.window.new_zeros(batch, c.kernel - 1, c.decoder_width) for _ in self.decoder]
        pasts += [self.window.new_zeros(batch, c.kernel - 1, c.sub_width) for _ in self.sub]
        ringing = [self.window.new_zeros(batch, 2, n) for n in (c.tail, c.n_fft - c.sub_hop)]
        return (torch.zeros((), dtype=torch.int64), *ringing, *pasts)

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, k, dim) -> (B, 2, k * hop) and the state after it."""
        c = self.config
        frame, wave_ringing, ringing, *pasts = state
        wave = latents[..., : c.wave_dim]
        kernels = self.wave_out(wave).unflatten(2, (2, -1)).transpose(1, 2)
        low, wave_ringing = overlap_add(kernels, c.hop, wave_ringing)
        # asinh: the waveform's numbers have heavy tails
        hidden = self.latent_in(torch.cat([torch.asinh(wave), latents[..., c.wave_dim :]], dim=2))
        hidden, after = run_blocks(self.decoder, hidden, tuple(pasts[: len(self.decoder)]))
        hidden = self.to_sub(hidden).unflatten(2, (-1, c.sub_width)).flatten(1, 2)
        hidden, sub_after = run_blocks(self.sub, hidden, tuple(pasts[len(self.decoder) :]))
        noise = self.noise(int(frame), latents.shape[1])
        envelope = self.envelope_out(latents[..., c.wave_dim :]).unflatten(2, (-1, 2, c.n_fft // 2 + 1)).flatten(1, 2)
        spectra = self._spectra(self.sub_norm(hidden), envelope, noise)
        windows = torch.fft.irfft(spectra, n=c.n_fft) * self.window
        rest, ringing = overlap_add(windows.transpose(1, 2), c.sub_hop, ringing)
        mid, side = (low + rest).unbind(1)
        frame = (frame + latents.shape[1]) % c.noise_frames
        return torch.stack([mid + side, mid - side], dim=1), (frame, wave_ringing, ringing, *after, *sub_after)

    def _spectra(self, hidden: Tensor, envelope: Tensor, noise: Tensor) -> Tensor:
        """(B, S, width), natural log-magnitudes (B, S, C, F), unit noise (S, C, F) -> complex (B, S, C, F)."""
        c = self.config
        magnitude = torch.exp((envelope + self.magnitude(hidden).unflatten(2, (2, -1))).clamp(max=7.0))
        # Parseval: a real signal's mean square from one half of its spectrum
        rms = (2 * magnitude.square().sum(-1, keepdim=True)).sqrt() / c.n_fft
        magnitude = magnitude * (CEILING / rms).clamp(max=1.0)
        share, real, imag = self.phase(hidden).unflatten(2, (2, 3, -1)).unbind(3)
        low = torch.sigmoid(share) * noise[..., : c.phase_bins] + torch.complex(real, imag)
        unit = torch.cat([low, noise[..., c.phase_bins :].expand(hidden.shape[0], -1, -1, -1)], dim=3)
        return magnitude * unit

    def noise(self, first: int, frames: int) -> Tensor:
        """Unit complex numbers (S, C, F) of pseudo-random phase for `frames` frames from frame `first` on.

        An integer hash of (sub-frame, channel, bin), so that they are the same on every machine and torch.
        """
        c = self.config
        per_frame, bins = c.hop // c.sub_hop, c.n_fft // 2 + 1
        device = self.window.device
        frame = torch.arange(first, first + frames, device=device) % c.noise_frames
        sub = (frame[:, None] * per_frame + torch.arange(per_frame, device=device)).flatten()
        key = (sub[:, None, None] * 2 + torch.arange(2, device=device)[:, None]) * bins + torch.arange(
            bins, device=device
        )
        for multiplier in (0x45D9F3B, 0x45D9F3B, 0x2C1B3C6D):
            key = ((key ^ (key >> 16)) * multiplier) & 0xFFFFFFFF
        angle = (key ^ (key >> 16)).to(torch.float32) * (2 * math.pi / 2**32)
        return torch.polar(torch.ones_like(angle), angle)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, frames, dim) -> (B, 2, frames * hop)."""
        check_latents(latents, self.config.dim)
        state, empty = self.decode_state(len(latents)), latents.new_zeros(len(latents), 2, 0)
        return in_steps(self.decode_step, state, latents, 1, STRETCH_FRAMES, empty)

    @property
    def identity(self) -> CodecIdentity:
        """Digests of the settings and of the weights as they are now."""
        return self._frozen or self._digest()

    def freeze(self) -> CausalCodec:
        """For use: evaluation mode, no gradients, and the identity taken once, since hashing takes a while."""
        self.eval().requires_grad_(False)
        self._frozen = self._digest()
        return self

    def _digest(self) -> CodecIdentity:
        c = self.config
        return CodecIdentity(
            name="causal",
            architecture=digest_of_settings(VERSION, asdict(c)),
            weights=digest_of_weights(self.state_dict()),
            dtype=str(self.dtype).removeprefix("torch."),
            sample_rate=c.sample_rate,
            channels=2,
            hop=c.hop,
            dim=c.dim,
            causal=True,
            delay_samples=0,
        )

    def _check(self, audio: Tensor, multiple: int) -> None:
        if audio.ndim != 3 or audio.shape[1] != 2 or audio.shape[2] % multiple or not audio.shape[2]:
            raise ValueError(
                f"the causal codec's step takes (batch, 2, k * {multiple}) samples, k >= 1; got {tuple(audio.shape)}. "
                "Expand mono to two channels, and use encode() for lengths that are not whole frames."
            )
