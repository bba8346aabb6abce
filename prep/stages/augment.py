"""Renditions: the same changes to all stems of a multitrack, drawn once, written down, and made again from that.

Latents cannot be pitched, so a rendition is a further example. MIDI that is rendered takes `speed` and `semitones` as
they are (`prep.render`); recorded audio is stretched and filtered here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from prep.config import Augment


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

    def to_json(self) -> str:
        """Only what differs from the default, so that nothing is "{}"."""
        default = asdict(Augmentation())
        return json.dumps({key: value for key, value in asdict(self).items() if value != default[key]})

    @classmethod
    def from_json(cls, text: str) -> Augmentation:
        values = json.loads(text)
        if "bands" in values:
            values["bands"] = tuple(tuple(band) for band in values["bands"])
        return cls(**values)


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
