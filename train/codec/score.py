"""Codecs' figures on music that they were not trained on, beside the yardsticks that keep them honest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from prep.codecs import CausalCodec
from train.codec.corpora import Clip, Corpus
from train.codec.latents import LatentStatistics, statistics
from train.codec.measures import log_mel_distance, low_pass, si_sdr_db, stft_distance
from train.codec.notes import onsets_kept, pitches_kept
from train.codec.spectra import bandwidth_hz, image_distance
from train.codec.yardsticks import Coder, coder_of, yardsticks

LINEAR = "best linear"
MOST_RATIO = 0.45
LEAST_SI_SDR_DB = {"TimGM6mb": 2.0, "FluidR3": 0.0}  # by how the SoundFont's name starts


@dataclass(frozen=True)
class Figures:
    """Means over a corpus's clips; NaN where a measure says nothing, as of notes without MIDI."""

    log_mel: float
    stft: float
    si_sdr_db: float
    si_sdr_low_db: float  # below 4 kHz
    onsets: float
    onsets_added: float
    pitches: float
    bandwidth_hz: float
    side_db: float
    correlation: float


@dataclass(frozen=True)
class Table:
    """One corpus. `rows` by label, codecs first; a string says why there are no figures."""

    corpus: Corpus
    rows: dict[str, Figures | str]
    own_bandwidth_hz: float
    latents: dict[str, LatentStatistics]

    def gate(self, label: str) -> Gate:
        ours, linear = self.rows[label], self.rows[LINEAR]
        assert isinstance(ours, Figures) and isinstance(linear, Figures)
        least = [db for name, db in LEAST_SI_SDR_DB.items() if self.corpus.soundfont.startswith(name)]
        return Gate(ours.log_mel / linear.log_mel, ours.si_sdr_db, least[0] if least else None)


@dataclass(frozen=True)
class Gate:
    """A vocoder wins log-mel, a low-pass SI-SDR: only both count."""

    ratio: float
    si_sdr_db: float
    least_si_sdr_db: float | None  # None: nothing is asked of this corpus

    @property
    def met(self) -> bool | None:
        if self.least_si_sdr_db is None:
            return None
        return self.ratio <= MOST_RATIO and self.si_sdr_db >= self.least_si_sdr_db


def score(
    codecs: Mapping[str, CausalCodec],
    corpus: Corpus,
    corpora: Sequence[Corpus] = (),
    step: Callable[[], object] = lambda: None,
) -> Table:
    """Figures for each codec (all of one frame and dimension) and for each yardstick; `step` is called after each.

    What is too short for yardsticks of its own gets those of all `corpora`.
    """
    first = next(iter(codecs.values()))
    coders = [coder_of(label, codec) for label, codec in codecs.items()]
    clips = [clip.audio for clip in corpus.clips]
    coders += yardsticks(first.config, clips, [clip.audio for other in corpora for clip in other.clips] or clips)
    rate, rows = first.config.sample_rate, {}
    for coder in coders:
        rows[coder.label] = _figures(coder, corpus.clips, rate)
        step()
    own = [bandwidth_hz(clip.audio, clip.audio, rate) for clip in corpus.clips]
    latents = {
        label: statistics(torch.cat([codec.encode(clip.audio[None])[0] for clip in corpus.clips]))
        for label, codec in codecs.items()
    }
    return Table(corpus, rows, sum(own) / len(own), latents)


def _figures(coder: Coder, clips: list[Clip], rate: int) -> Figures | str:
    if coder.round_trip is None:
        return coder.missing
    each = [_of_clip(clip, coder.round_trip(clip.audio), rate) for clip in clips]
    columns = ([getattr(figures, name) for figures in each] for name in Figures.__annotations__)
    return Figures(*(_mean([x for x in column if not math.isnan(x)]) for column in columns))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _of_clip(clip: Clip, decoded: torch.Tensor, rate: int) -> Figures:
    audio, notes = clip.audio, clip.notes
    onsets, added = onsets_kept(audio, decoded, notes, rate) if notes else (math.nan, math.nan)
    side, correlation = image_distance(audio, decoded, rate)
    return Figures(
        log_mel=float(log_mel_distance(audio, decoded, rate)),
        stft=float(stft_distance(audio, decoded)),
        si_sdr_db=float(si_sdr_db(audio, decoded)),
        si_sdr_low_db=float(si_sdr_db(low_pass(audio, rate, 4000), low_pass(decoded, rate, 4000))),
        onsets=onsets,
        onsets_added=added,
        pitches=pitches_kept(audio, decoded, notes, rate) if notes else math.nan,
        bandwidth_hz=bandwidth_hz(audio, decoded, rate),
        side_db=side,
        correlation=correlation,
    )
