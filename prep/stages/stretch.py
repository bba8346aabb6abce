"""Recorded audio at another speed and another pitch, with its attacks where they belong.

A phase vocoder (Signalsmith Stretch, MIT) keeps tones well, but only with windows of 200 ms: with its own choice of
120 ms, chords and the lowest notes of a bass come out off pitch. Such windows smear attacks. So the audio is cut in
front of every attack and each piece is stretched by itself; what follows a cut is a plain copy, faded into the
stretched piece, which starts in phase with it. Nothing of an attack can sound before its place, and nothing can drift.
The pitch is changed by stretching further and resampling: the library's own shift leaves a bass up to 40 cents sharp.

An attack that is found e ms from where it is lands e * |1 / ratio - 1 / speed| from its place, where ratio is the
pitch's: at most 0.46 e at 0.8 to 1.2 and 4 semitones. Clicks, drums, plucked and held notes with 20 ms of rest between
them, and picked low strings over ringing ones, land within 5 ms (tests). Of the onsets of three composed songs that
`tests.bench.onsets` can place (83 %), 99.9 % do, and 99 % within 2 ms; of four songs with larger samples (71 %), 99.3 %
and within 3.8 ms; of drums all. Further off, by up to 30 ms, are some of low basses, saxophones, organs and flutes that
play legato, and one in 400 of pianos: what begins without a transient while the last note dies away is not always
found, or a period too late, and is smeared as the window smears it; the fade in front of a cut may itself be heard.
Where a copy fades into what was stretched, a tone may dip. Of two attacks less than 18 ms apart only the greater one is
found, and the other may be 4.5 ms off at 0.8, with 4 semitones 8 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import soxr
from numpy.typing import NDArray
from python_stretch import Signalsmith
from scipy import fft, signal
from scipy.ndimage import maximum_filter1d

from prep.stages.weighting import are_alike

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class _Windows:
    vocoder_s: float
    echo_s: float  # a rise this long after another one has to be the greater one


# Tones need windows that tell the partials of a bass apart, and such notes pulse; hits follow each other more closely
_TONES = _Windows(vocoder_s=0.2, echo_s=0.036)
_DRUMS = _Windows(vocoder_s=0.06, echo_s=0.015)

_HOP_S = 0.003
_WINDOW_S = 0.0116
_BANDS = (0, 2, 4, 8, 16, 32, 64, 128)  # the first bins of octaves, 86 Hz each
_RISE_HOPS = 3
_NEAR_HOPS = 4
_RISE_DB = 9.0  # of all bands together, beyond the greatest before
_MOST_DB = 30.0  # of one band
_BELOW_DB = 50.0  # what lies so far below the loudest band of the last 0.3 s is not heard
_SILENT_DB = 60.0  # nor what lies so far below the loudest of all
_HEARD_HOPS = 100
_LONGEST_HOPS = 6667  # 20 s: a longer piece is cut where it is quietest, so that memory stays bounded
_APART_HOPS = 6  # of two attacks that are closer the greater one counts: what 0.8 puts off by 4.5 ms
_BLOCK_HOPS = 2048

_LEAD_S = 0.012  # how far in front of an attack its piece starts, having come in over as long
_HEAD_S = 0.04  # the copy, which then fades into the stretched piece
_ALONE_S = 0.02  # how long it stands alone


def stretched_length(samples: int, speed: float) -> int:
    """ceil(samples / speed), of the speed as it is written: 1.2 is 6/5, not the binary number beside it."""
    return math.ceil(samples / Fraction(str(speed)))


def stretch(audio: Audio, rate: int, speed: float, semitones: float = 0.0, drums: bool = False) -> Audio:
    """(1 or 2 channels, samples) `speed` times as fast and `semitones` higher: (channels, stretched_length).

    Channels that are equal stay equal, and equal arguments give equal bytes. `drums` takes shorter windows.
    """
    length = stretched_length(audio.shape[1], speed)
    peak = float(max(audio.max(initial=0), -audio.min(initial=0)))
    if peak == 0:
        return np.zeros((audio.shape[0], length), np.float32)
    if audio.shape[0] == 2 and are_alike(audio):
        # the vocoder rounds its two channels differently
        return np.repeat(stretch(audio[:1], rate, speed, semitones, drums), 2, axis=0)
    exponent = min(max(math.frexp(peak)[1], -126), 126)
    if abs(exponent) > 20:
        # Squares of such floats pass the ends of what there is; a power of two rounds nothing
        scaled = stretch(audio * np.float32(2.0**-exponent), rate, speed, semitones, drums)
        largest = np.finfo(np.float32).max * np.float32(2.0 ** -max(exponent, 0))
        return np.clip(scaled, -largest, largest) * np.float32(2.0**exponent)
    ratio = 2.0 ** (semitones / 12)
    pieces = _pieces(audio, rate, speed / ratio, _DRUMS if drums else _TONES)
    out = np.zeros((audio.shape[0], length), np.float32)
    at = 0
    for piece in pieces if ratio == 1 else _resampled(pieces, ratio, audio.shape[0]):
        here = out[:, at : at + piece.shape[1]]
        here[:] = piece[:, : here.shape[1]]
        at += piece.shape[1]
    return out


def _resampled(pieces: Iterator[Audio], ratio: float, channels: int) -> Iterator[Audio]:
    stream = soxr.ResampleStream(ratio, 1.0, channels, dtype="float32")
    for piece in pieces:
        yield stream.resample_chunk(np.ascontiguousarray(piece.T)).T
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def _pieces(audio: Audio, rate: int, speed: float, windows: _Windows) -> Iterator[Audio]:
    """The whole, stretched, piece after piece; at most ceil(samples / speed) samples."""
    samples = audio.shape[1]
    attacks = np.array([0, *find_attacks(audio, rate, windows)])
    # Shorter where attacks are close, or one would lie in the next one's lead
    leads = np.minimum(round(_LEAD_S * rate), np.diff(attacks) // max(3, 2 * speed)).astype(int).tolist()
    # Each attack is put exactly where the factor has it, and the lead in front of it is as long as before
    places = [round(at / speed) - lead for at, lead in zip(attacks[1:].tolist(), leads, strict=True)]
    starts = [0, *(attacks[1:] - leads).tolist(), samples]
    vocoder = Signalsmith.Stretch(0)
    vocoder.configure(audio.shape[0], round(windows.vocoder_s * rate), round(windows.vocoder_s * rate / 4))
    vocoder.setTimeFactor(speed)
    pending = np.zeros((audio.shape[0], 0), np.float32)
    spans = zip(pairwise(starts), pairwise([0, *places, math.ceil(samples / speed)]), [0, *leads], strict=True)
    for (start, end), (place, until), lead in spans:
        fade = min(lead, pending.shape[1], start)
        piece = audio[:, start - fade : end]
        rising = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
        before = pending[:, pending.shape[1] - fade :]
        before += rising * (piece[:, :fade] - before)
        yield pending
        pending = _stretched(piece[:, fade:], until - place, vocoder, rate)
    yield pending


def _stretched(piece: Audio, length: int, vocoder: Signalsmith.Stretch, rate: int) -> Audio:
    # Mirrored at its end, but not so far that its attack came back; zeros would pull the end down by 8 dB
    beyond = min(vocoder.blockSamples() // 2, piece.shape[1] // 2)
    # The vocoder takes whatever memory it is given for rows of samples
    mirrored = np.ascontiguousarray(np.pad(piece, ((0, 0), (0, beyond)), mode="reflect"))
    body = np.asarray(vocoder.process(mirrored))[:, :length]
    body = np.pad(body, ((0, 0), (0, length - body.shape[1])))
    # The copy ends before the next attack, which would sound twice
    copied = min(round(_HEAD_S * rate), length, piece.shape[1])
    falling = np.arange(copied, 0, -1, dtype=np.float32) / max(copied - round(_ALONE_S * rate), copied // 4, 1)
    body[:, :copied] += np.minimum(falling, 1) * (piece[:, :copied] - body[:, :copied])
    return body


def find_attacks(audio: Audio, rate: int, windows: _Windows) -> list[int]:
    """Where attacks are, in samples, rising; and where a piece without any is to be cut.

    An attack is where the levels of octave bands rise, together and by more than they have just before: a low note's
    single periods make them rise as well, again and again.
    """
    hop = max(1, round(_HOP_S * rate))
    if audio.shape[1] < hop:
        return []
    levels = _levels_db(audio, rate, hop)
    level = levels.max(axis=1)
    echo_hops = round(windows.echo_s / _HOP_S)
    heard = np.maximum(_largest(level, 0, _HEARD_HOPS) - _BELOW_DB, level.max() - _SILENT_DB)[:, None]
    loudest = np.maximum(heard, _largest(levels, _NEAR_HOPS, echo_hops + _RISE_HOPS))
    # What rises at all finds a note struck again as loud; what rises above all before, one that takes over from another
    rises = [_rise(levels, floor) for floor in (heard, loudest)]
    rise = sum(np.maximum(each - _largest(each, _NEAR_HOPS, echo_hops), 0) for each in rises)
    peaks = np.flatnonzero((rise > _RISE_DB) & (rise == maximum_filter1d(rise, 2 * _APART_HOPS + 1)))
    found = [0]
    for at in (*(peaks - _RISE_HOPS // 2).tolist(), len(level)):
        while at - found[-1] > _LONGEST_HOPS:
            middle = found[-1] + _LONGEST_HOPS // 2
            found.append(middle + int(np.argmin(level[middle : found[-1] + _LONGEST_HOPS])))
        if at - found[-1] >= _APART_HOPS:
            found.append(at)
    return [at * hop for at in found[1:] if at < len(level)]


def _rise(levels: NDArray[np.float32], floor: NDArray[np.float32]) -> NDArray[np.float32]:
    """By how much the bands rise within `_RISE_HOPS`, above the floor."""
    before = np.pad(levels, ((_RISE_HOPS, 0), (0, 0)), constant_values=-np.inf)[: len(levels)]
    return np.clip(np.maximum(levels, floor) - np.maximum(before, floor), 0, _MOST_DB).sum(axis=1)


def _levels_db(audio: Audio, rate: int, hop: int) -> NDArray[np.float32]:
    """Of each band around the middle of each whole hop: (hops, bands)."""
    size = fft.next_fast_len(round(_WINDOW_S * rate), real=True)
    bands = [first for first in _BANDS if first <= size // 2]
    window = signal.windows.hann(size, sym=False).astype(np.float32)
    hops = audio.shape[1] // hop
    levels = np.empty((hops, len(bands)), np.float32)
    for start in range(0, hops, _BLOCK_HOPS):
        stop = min(start + _BLOCK_HOPS, hops)
        mono = _mono(audio, start * hop + hop // 2 - size // 2, stop * hop + size)
        frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop][: stop - start]
        spectra: Audio = np.abs(fft.rfft(frames * window, axis=1))
        levels[start:stop] = np.add.reduceat(np.square(spectra), bands, axis=1)
    return 10 * np.log10(levels + np.float32(1e-30))


def _largest(values: NDArray[np.float32], nearest: int, farthest: int) -> NDArray[np.float32]:
    """Of each value's predecessors, the `nearest` to the `farthest` before it."""
    padded = np.pad(values, [(farthest, 0)] + [(0, 0)] * (values.ndim - 1), constant_values=values.min())
    windows = np.lib.stride_tricks.sliding_window_view(padded, farthest - nearest + 1, axis=0)
    return windows[: len(values)].max(axis=-1)


def _mono(audio: Audio, first: int, last: int) -> Audio:
    """audio[:, first:last] with silence beyond both ends, summed with unequal weights: no stereo picture cancels."""
    taken = audio[:, max(first, 0) : last]
    mono = taken[0] + np.float32(0.7) * taken[1] if len(taken) == 2 else taken[0]
    return np.pad(mono, (max(-first, 0), last - max(first, 0) - len(mono)))
