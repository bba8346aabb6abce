"""The yardsticks are what they say: the best linear codec, a vocoder without waveform, both at once, and Opus."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.prep.made import SMALL, tones
from train.codec import opus
from train.codec.measures import log_mel_distance, si_sdr_db
from train.codec.yardsticks import linear_round_trip, principal_components, yardsticks
from train.errors import TrainError

RATE = 44100
CONFIG = dataclasses.replace(SMALL, wave_dim=12, envelope_dim=8)


def clips(count: int = 2, seconds: float = 10.0) -> list[torch.Tensor]:
    """Sums of decaying tones with a little noise, in whole frames."""
    rng = np.random.default_rng(0)
    frames = int(seconds * RATE) // 4096 * 4096
    mixes = [sum(tones(number, 3, seconds).values())[:frames] for number in range(count)]
    return [torch.from_numpy(m + 1e-2 * rng.standard_normal((2, frames))).float() for m in mixes]


def test_the_best_linear_codec_is_the_best() -> None:
    """Dropping any direction, or any other basis of the same size, leaves more error."""
    mix = clips(1, 4.0)[0][:, : 40 * 4096]
    basis = principal_components([mix], 4096, 8)
    error = (linear_round_trip(mix, basis, 4096) - mix).square().sum()
    for seed in range(3):
        other = torch.linalg.qr(torch.randn(8192, 8, generator=torch.Generator().manual_seed(seed)))[0]
        assert error < (linear_round_trip(mix, other, 4096) - mix).square().sum()
    exact = torch.linalg.svdvals(mix.unfold(1, 4096, 4096).transpose(0, 1).flatten(1))[8:].square().sum()
    torch.testing.assert_close(error, exact, rtol=1e-2, atol=1e-2)


def test_each_yardstick_wins_and_loses_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opus, "missing", lambda: "not asked here")
    audio = clips()
    coders = {coder.label: coder for coder in yardsticks(CONFIG, audio, audio)}
    trips = {label: coder.round_trip for label, coder in coders.items() if coder.round_trip}
    assert list(trips) == ["best linear", "vocoder, untrained", "linear + vocoder, untrained"]
    assert [c.missing for c in coders.values() if not c.round_trip] == ["not asked here"] * 3
    decoded = {label: trip(audio[0]) for label, trip in trips.items()}
    assert all(y.shape == audio[0].shape for y in decoded.values())
    linear, vocoder, both = (float(si_sdr_db(audio[0], y)) for y in decoded.values())
    assert linear > 5 and vocoder < -20 and linear > both > vocoder + 20
    mel = [float(log_mel_distance(audio[0], y, RATE, floor=1e-2)) for y in decoded.values()]
    assert mel[0] > 1.5 * mel[1] and mel[0] > 1.5 * mel[2]


def test_short_corpora_get_the_yardsticks_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted to itself, a clip of fewer frames than numbers would come out whole."""
    monkeypatch.setattr(opus, "missing", lambda: "not asked here")
    long, short = clips(2), [clips(1)[0][:, : 10 * 4096]]
    fitted = yardsticks(CONFIG, short, long)[0].round_trip
    assert fitted is not None and float(si_sdr_db(short[0], fitted(short[0]))) < 30
    with pytest.raises(TrainError, match=r"10 frames in all are too few .* Give at least 40 \(4 s\)"):
        yardsticks(CONFIG, short, short)


def test_opus_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert opus.missing.__wrapped__() == "no ffmpeg here"


@pytest.mark.skipif(bool(opus.missing()), reason=opus.missing())
def test_opus_is_in_step_and_better_at_more_bits() -> None:
    audio = clips(1, 2.0)[0]
    fidelity = [float(si_sdr_db(audio, opus.opus_round_trip(audio, RATE, kbits))) for kbits in (12, 48)]
    assert 3 < fidelity[0] < fidelity[1]
