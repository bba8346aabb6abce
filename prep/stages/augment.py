"""Renditions: the same changes to all stems of a multitrack, drawn once, written down, and made again from that.

Latents cannot be pitched, so a rendition is a further example. MIDI that is rendered takes `speed` and `semitones` as
they are (`prep.render`); recorded audio is stretched and filtered here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from prep.config import Augment
from prep.stages.stretch import stretch, stretched_length

_TRIES = 64
_BLOCK = 1 << 20  # samples changed at once, filtered in double precision
_LARGEST = np.finfo(np.float32).max
_HIGHEST = 0.45  # of the rate; filters up there would bend at the Nyquist frequency


@dataclass(frozen=True)
class Augmentation:
    """`speed` 1.2 plays 1.2 times as fast at the same pitch; `bands` are peaking filters (Hz, dB, Q); a `low_pass_hz`
    of 0 is none. What is left at its default changes nothing."""

    speed: float = 1.0
    semitones: float = 0.0
    pitch_drums: bool = False
    polarity: bool = False  # inverted
    swap: bool = False  # left and right
    bands: tuple[tuple[float, float, float], ...] = ()
    low_pass_hz: float = 0.0

    @property
    def is_heard(self) -> bool:
        """Whether an ear would notice: with polarity and sides alone it is the same song once more."""
        return self.speed != 1.0 or self.semitones != 0.0 or bool(self.bands) or self.low_pass_hz > 0.0

    def to_json(self) -> str:
        """Only what differs from the default, so that nothing is "{}"."""
        default = asdict(Augmentation())
        return json.dumps({key: value for key, value in asdict(self).items() if value != default[key]})

    @classmethod
    def from_json(cls, text: str) -> Augmentation:
        """Raises ValueError and TypeError where the text is no such record."""
        values = dict(json.loads(text))
        for name in {"speed", "semitones", "low_pass_hz"} & values.keys():
            values[name] = float(values[name])
        if "bands" in values:
            values["bands"] = tuple((float(hz), float(gain_db), float(q)) for hz, gain_db, q in values["bands"])
        return cls(**values)


def draw_heard(settings: Augment, rng: np.random.Generator) -> Augmentation:
    """The first draw that is heard; an unheard one where the settings hardly ever allow another."""
    for _ in range(_TRIES):
        drawn = draw_augmentation(settings, rng)
        if drawn.is_heard:
            break
    return drawn


def draw_augmentation(settings: Augment, rng: np.random.Generator) -> Augmentation:
    """One rendition's changes. Every number is drawn whether used or not, so that one setting moves no other's draw."""
    use = rng.random(6)
    speed = float(np.round(rng.uniform(settings.min_speed, settings.max_speed), 2))  # STAGE's steps of 0.01
    semitones = int(rng.integers(-settings.max_semitones, settings.max_semitones + 1))
    # a band below 300 Hz, one below 3 kHz, one above, alike on the logarithmic scale of hearing
    edges_hz = np.log([60.0, 300.0, 3000.0, 12000.0])
    hz = np.exp(rng.uniform(edges_hz[:-1], edges_hz[1:]))
    gains_db = rng.uniform(-settings.eq_db, settings.eq_db, 3)
    widths = rng.uniform(0.5, 2.0, 3)
    low_pass_hz = float(np.exp(rng.uniform(np.log(settings.min_low_pass_hz), np.log(16000.0))))
    bands = tuple(
        (round(float(f), 1), round(float(g), 2), round(float(q), 2))
        for f, g, q in zip(hz, gains_db, widths, strict=True)
    )
    return Augmentation(
        speed=speed if use[0] < settings.speed_probability else 1.0,
        semitones=float(semitones) if use[1] < settings.pitch_probability else 0.0,
        pitch_drums=settings.pitch_drums,
        polarity=bool(use[2] < settings.polarity_probability),
        swap=bool(use[3] < settings.swap_probability),
        bands=bands if use[4] < settings.eq_probability else (),
        low_pass_hz=round(low_pass_hz, 1) if use[5] < settings.low_pass_probability else 0.0,
    )


def draw_stem_gain_db(settings: Augment, rng: np.random.Generator) -> float:
    """One stem's gain, the only change that stems do not share."""
    return round(float(rng.uniform(-settings.stem_gain_db, settings.stem_gain_db)), 2)


def augmented_length(samples: int, augmentation: Augmentation) -> int:
    """ceil(samples / speed)"""
    return stretched_length(samples, augmentation.speed)


def augment(audio: NDArray[np.float32], rate: int, augmentation: Augmentation, drums: bool) -> NDArray[np.float32]:
    """A changed copy of a stem, float32 (1 or 2 channels, samples): (channels, augmented_length).

    Speed and pitch, then polarity, channels, bands and low-pass. Drums keep their pitch unless `pitch_drums` says so.
    Finite comes out for finite in, silence for silence; levels may pass full scale. Raises ValueError on other shapes.
    """
    if audio.ndim != 2 or audio.shape[0] not in (1, 2):
        raise ValueError(f"audio has shape {audio.shape}; (1 or 2 channels, samples) is wanted")
    semitones = 0.0 if drums and not augmentation.pitch_drums else augmentation.semitones
    if augmentation.speed == 1 and semitones == 0:
        out = audio.copy()
    else:
        out = stretch(audio, rate, augmentation.speed, semitones, drums)
    sections = _sections(augmentation, rate)
    state = np.zeros((len(sections), audio.shape[0], 2))
    for start in range(0, out.shape[1], _BLOCK):
        block = out[:, start : start + _BLOCK]
        changed = -block if augmentation.polarity else block
        changed = changed[::-1] if augmentation.swap else changed
        if len(sections):
            changed, state = signal.sosfilt(sections, changed.astype(np.float64), zi=state)
        block[:] = np.clip(changed, -_LARGEST, _LARGEST)
    return out


def _sections(augmentation: Augmentation, rate: int) -> NDArray[np.float64]:
    """Second-order sections, one row each, of the filters that fit below the Nyquist frequency."""
    rows = [_peaking(hz, db, q, rate) for hz, db, q in augmentation.bands if hz < _HIGHEST * rate]
    if 0 < augmentation.low_pass_hz < _HIGHEST * rate:
        rows.extend(signal.butter(4, augmentation.low_pass_hz, fs=rate, output="sos"))
    return np.array(rows)


def _peaking(hz: float, db: float, q: float, rate: int) -> NDArray[np.float64]:
    """The peaking equaliser of Bristow-Johnson's Audio EQ Cookbook: `db` at `hz`, 0 dB far from it."""
    angle = 2 * np.pi * hz / rate
    amplitude, width = 10 ** (db / 40), np.sin(angle) / (2 * q)
    above = [1 + width * amplitude, -2 * np.cos(angle), 1 - width * amplitude]
    below = [1 + width / amplitude, -2 * np.cos(angle), 1 - width / amplitude]
    return np.array(above + below) / below[0]
