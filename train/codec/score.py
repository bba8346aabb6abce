"""The codec's figures on songs it was not trained on, beside the best linear codec of the same frame and dimension."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prep.codecs import Codec
from train.codec.measures import log_mel_distance, si_sdr_db
from train.codec.songs import find_songs, read_stereo
from train.errors import TrainError


@dataclass(frozen=True)
class Figures:
    """Means over mixes."""

    mixes: int
    log_mel: float
    log_mel_linear: float
    si_sdr_db: float
    si_sdr_linear_db: float

    @property
    def ratio(self) -> float:
        return self.log_mel / self.log_mel_linear

    def lines(self) -> list[str]:
        return [
            f"{'':<26}{'log-mel distance':>18}{'SI-SDR dB':>12}",
            f"{'causal codec':<26}{self.log_mel:>18.3f}{self.si_sdr_db:>12.2f}",
            f"{'best linear, same frame':<26}{self.log_mel_linear:>18.3f}{self.si_sdr_linear_db:>12.2f}",
            f"log-mel ratio {self.ratio:.3f} over {self.mixes} mixes",
        ]


def score(codec: Codec, data: Path, seconds: float = 60.0) -> Figures:
    """Figures over up to `seconds` of each mix below `data` (Slakh2100's layout, at the codec's rate).

    The linear codec is the principal components of these very mixes, so no linear codec of this frame and dimension
    has a smaller squared error on them.
    """
    c = codec.identity
    mixes = [
        _whole_frames(read_stereo(s.mix, 0, int(seconds * c.sample_rate)), c.hop)
        for s in find_songs(data, c.sample_rate)
    ]
    if any(mix.shape[1] < c.hop for mix in mixes):
        raise TrainError(f"a mix below {data} is shorter than a frame of {c.hop} samples. Leave it out.")
    basis = principal_components(mixes, c.hop, c.dim)
    rows = []
    for mix in mixes:
        decoded = codec.decode(codec.encode(mix[None]))[0]
        linear = linear_round_trip(mix, basis, c.hop)
        pairs = [(log_mel_distance(mix, y, c.sample_rate), si_sdr_db(mix, y)) for y in (decoded, linear)]
        rows.append([float(v) for pair in pairs for v in pair])
    mel, sdr, mel_linear, sdr_linear = torch.tensor(rows).mean(0).tolist()
    return Figures(len(mixes), mel, mel_linear, sdr, sdr_linear)


def _whole_frames(audio: object, hop: int) -> Tensor:
    tensor = torch.as_tensor(audio)
    return tensor[:, : tensor.shape[1] // hop * hop]


def frames_of(mix: Tensor, hop: int) -> Tensor:
    """(2, frames * hop) -> (frames, 2 * hop)."""
    return mix.unfold(1, hop, hop).transpose(0, 1).flatten(1)


def principal_components(mixes: list[Tensor], hop: int, dim: int) -> Tensor:
    """(2 * hop, dim): the leading components of all frames, uncentred."""
    torch.manual_seed(0)
    return torch.svd_lowrank(torch.cat([frames_of(mix, hop) for mix in mixes]), q=dim + 32, niter=6)[2][:, :dim]


def linear_round_trip(mix: Tensor, basis: Tensor, hop: int) -> Tensor:
    """Project every frame on `basis` and back: (2, samples) -> (2, samples)."""
    frames = frames_of(mix, hop) @ basis @ basis.T
    return frames.view(-1, 2, hop).transpose(0, 1).flatten(1)
