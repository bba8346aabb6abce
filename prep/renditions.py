"""Renditions of a rendered song: transposed and re-timed in MIDI, then rendered anew, so that no artefact is heard.

Of an augmentation a rendition takes speed, semitones and pitch_drums; what is done to audio is the build's to do.
"""

from __future__ import annotations

from typing import Any

from prep.config import Augment
from prep.draws import rng_for
from prep.errors import Reject
from prep.midi import MAX_S, Song, transposed
from prep.stages.augment import Augmentation, draw_augmentation

# What of the settings decides a rendition of MIDI
_USED = ("speed_probability", "min_speed", "max_speed", "pitch_probability", "max_semitones", "pitch_drums")
_MAX_TEMPO = 0xFFFFFF  # microseconds a beat: three bytes
_TRIES = 64


def used_settings(settings: Augment) -> dict[str, Any]:
    """The settings that a rendition depends on."""
    return {name: getattr(settings, name) for name in _USED}


def draw_renditions(settings: Augment, number: int, seed: int, digest: str, same: bool) -> tuple[Augmentation, ...]:
    """The changes of a song's renditions 1 to `number`. With `same` a draw that changes nothing would be the original
    once more (there is no other SoundFont), and is drawn again."""
    return tuple(_draw(settings, seed, digest, k, same) for k in range(1, number + 1))


def _draw(settings: Augment, seed: int, digest: str, k: int, same: bool) -> Augmentation:
    rng = rng_for(seed, digest, f"rendition:{k}")
    for _ in range(_TRIES):
        drawn = draw_augmentation(settings, rng)
        used = Augmentation(speed=drawn.speed, semitones=drawn.semitones, pitch_drums=drawn.pitch_drums)
        if not same or used.is_heard:
            break
    return used


def make_rendition(song: Song, augmentation: Augmentation) -> tuple[Song, int] | Reject:
    """The song to render, and how many notes were put an octave back; see `prep.midi.transposed`."""
    speed = augmentation.speed
    if song.length_s / speed > MAX_S:
        return Reject("too_long", f"{song.length_s / speed:.0f} s; at most {MAX_S:.0f} s are rendered")
    tempi = [round(message.tempo / speed) for _, message in song.meta if message.type == "set_tempo"]
    if not all(1 <= tempo <= _MAX_TEMPO for tempo in tempi):
        return Reject("bad_tempo", f"{max(tempi)} microseconds a beat; MIDI can say 1 to {_MAX_TEMPO}")
    return transposed(song, round(augmentation.semitones), speed, augmentation.pitch_drums)
