"""Parts to stems, by FluidSynth: all instruments of a song in one pass of the synthesiser, each on its own output.

The library is called directly (libfluidsynth 2 or 3, through ctypes) because no Python package reaches
`fluid_synth_process`, the one call that keeps instruments apart. Reverb and chorus are off, so stems are dry and add up
to the mix exactly. Events fall on FluidSynth's blocks of 64 samples (1.5 ms at 44.1 kHz).
"""

import ctypes
import ctypes.util
import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prep.errors import PrepError
from prep.instruments import DRUMS
from prep.midi import Event, Part

BLOCK = 64
TAIL_S = 5.0
_FADE_S = 0.05
_PASS = 64  # parts a pass: FluidSynth has at most 128 outputs and 256 channels
_SCRATCH = 64 * BLOCK
_DRUM_BANK = 128
_LIBRARIES = ("libfluidsynth.so.3", "libfluidsynth.so.2", "libfluidsynth.3.dylib", "fluidsynth")
_INT_SETTINGS = {
    "synth.reverb.active": 0,
    "synth.chorus.active": 0,
    "synth.dynamic-sample-loading": 1,
    "synth.threadsafe-api": 0,
    # far above the default of 256, so that no instrument steals another one's voices
    "synth.polyphony": 2048,
}


@dataclass(frozen=True)
class Rendering:
    """`stems`: float32 (parts, channels, samples), unnormalised and unclipped; zeros where the SoundFont has no preset.
    `fallbacks`: indices of the parts whose bank it lacks, played by the plain preset."""

    stems: NDArray[np.float32]
    fallbacks: tuple[int, ...]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """FluidSynth, its log silenced; raises PrepError where it is not installed."""
    for name in (*_LIBRARIES, ctypes.util.find_library("fluidsynth")):
        try:
            lib = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if lib is not None:
            return _declared(lib)
    raise PrepError("libfluidsynth is not installed, and rendering needs it. Debian: apt install libfluidsynth3")


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "fluid_version_str": (text, []),
        "fluid_set_log_function": (pointer, [integer, pointer, pointer]),
        "new_fluid_settings": (pointer, []),
        "delete_fluid_settings": (None, [pointer]),
        "fluid_settings_setint": (integer, [pointer, text, integer]),
        "fluid_settings_setnum": (integer, [pointer, text, ctypes.c_double]),
        "new_fluid_synth": (pointer, [pointer]),
        "delete_fluid_synth": (None, [pointer]),
        "fluid_synth_sfload": (integer, [pointer, text, integer]),
        "fluid_synth_set_channel_type": (integer, [pointer, integer, integer]),
        "fluid_synth_program_select": (integer, [pointer, integer, integer, integer, integer]),
        "fluid_synth_unset_program": (integer, [pointer, integer]),
        "fluid_synth_noteon": (integer, [pointer, integer, integer, integer]),
        "fluid_synth_noteoff": (integer, [pointer, integer, integer]),
        "fluid_synth_cc": (integer, [pointer, integer, integer, integer]),
        "fluid_synth_pitch_bend": (integer, [pointer, integer, integer]),
        "fluid_synth_channel_pressure": (integer, [pointer, integer, integer]),
        "fluid_synth_get_active_voice_count": (integer, [pointer]),
        "fluid_synth_process": (integer, [pointer, integer, integer, pointer, integer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    for level in range(5):
        lib.fluid_set_log_function(level, None, None)
    return lib


def version() -> str:
    """FluidSynth's version: part of what the bytes of a rendering depend on."""
    return str(library().fluid_version_str().decode())


def render(
    parts: Sequence[Part], soundfonts: Sequence[Path], channels: int = 2, rate: int = 44100, tail_s: float = TAIL_S
) -> Rendering:
    """Plays each part with its own SoundFont (one path a part) until every voice has died away, at most `tail_s` after
    the last event, where what still sounds is faded out. One channel is the mean of left and right. Raises PrepError
    for a SoundFont that cannot be loaded."""
    last_s = max((event.time_s for part in parts for event in part.events), default=0.0)
    samples = -(-int((last_s + tail_s) * rate) // BLOCK) * BLOCK
    stems = np.zeros((len(parts), channels, samples), np.float32)
    fallbacks: list[int] = []
    length = BLOCK
    for start in range(0, len(parts), _PASS):
        stop = min(start + _PASS, len(parts))
        with _Synth(stop - start, rate) as synth:
            for i in range(start, stop):
                if synth.select(i - start, parts[i], soundfonts[i]) == "fallback":
                    fallbacks.append(i)
            length = max(length, synth.play(parts[start:stop], stems[start:stop]))
    return Rendering(stems[:, :, :length], tuple(fallbacks))


def _in_order(parts: Sequence[Part]) -> Iterator[tuple[int, Event]]:
    """(channel, event) by time, and by channel where that is the same."""
    timed = (zip(repeat(channel), part.events, strict=False) for channel, part in enumerate(parts))
    return heapq.merge(*timed, key=lambda item: item[1].time_s)


class _Tape:
    """Collects what the synthesiser plays, in stereo, and moves it to the stems a piece at a time. Silence is not
    moved: untouched zeros take no memory, so a stem costs about what it sounds."""

    def __init__(self, out: NDArray[np.float32]) -> None:
        self.out, self.now, self.filled = out, 0, 0
        self.scratch = np.zeros((out.shape[0], 2, _SCRATCH), np.float32)
        self.sides = self.scratch.ctypes.data + 4 * _SCRATCH * np.arange(2 * out.shape[0], dtype=np.uintp)

    def room(self) -> int:
        return _SCRATCH - self.filled

    def advance(self, samples: int) -> None:
        self.now += samples
        self.filled += samples
        if self.filled == _SCRATCH:
            self.flush()

    def flush(self) -> None:
        heard = np.flatnonzero(self.scratch.any(axis=(1, 2)))
        both = self.scratch[heard, :, : self.filled]
        played = both if self.out.shape[1] == 2 else both.mean(axis=1, keepdims=True)
        self.out[heard, :, self.now - self.filled : self.now] = played
        self.scratch[heard] = 0.0
        self.filled = 0


class _Synth:
    """A fresh synthesiser, one channel and one stereo output a part; nothing of a song stays for the next."""

    def __init__(self, parts: int, rate: int) -> None:
        self.lib, self.rate = library(), rate
        self.fonts: dict[Path, int] = {}
        self.settings = self.lib.new_fluid_settings()
        sizes = {
            "synth.midi-channels": -(-parts // 16) * 16,
            "synth.audio-channels": parts,
            "synth.audio-groups": parts,
        }
        for key, value in (_INT_SETTINGS | sizes).items():
            self.lib.fluid_settings_setint(self.settings, key.encode(), value)
        self.lib.fluid_settings_setnum(self.settings, b"synth.sample-rate", float(rate))
        self.synth = self.lib.new_fluid_synth(self.settings)

    def __enter__(self) -> "_Synth":
        return self

    def __exit__(self, *_: object) -> None:
        self.lib.delete_fluid_synth(self.synth)
        self.lib.delete_fluid_settings(self.settings)

    def select(self, channel: int, part: Part, soundfont: Path) -> str:
        """Sets a channel's sound: "exact", "fallback" (the plain preset of bank 0) or "missing" (it stays silent)."""
        font = self._font(soundfont)
        drums = part.program == DRUMS
        self.lib.fluid_synth_set_channel_type(self.synth, channel, int(drums))
        wanted = (_DRUM_BANK if drums else part.bank, part.preset)
        plain = (_DRUM_BANK, 0) if drums else (0, part.preset)
        for state, (bank, preset) in (("exact", wanted), ("fallback", plain)):
            if self.lib.fluid_synth_program_select(self.synth, channel, font, bank, preset) == 0:
                return state
        self.lib.fluid_synth_unset_program(self.synth, channel)
        return "missing"

    def _font(self, soundfont: Path) -> int:
        if soundfont not in self.fonts:
            self.fonts[soundfont] = self.lib.fluid_synth_sfload(self.synth, os.fsencode(soundfont), 0)
        if self.fonts[soundfont] < 0:
            raise PrepError(f"{soundfont} is not a SoundFont that FluidSynth can load. Pass an .sf2 or .sf3 file.")
        return self.fonts[soundfont]

    def play(self, parts: Sequence[Part], out: NDArray[np.float32]) -> int:
        """Fills `out` (parts, channels, samples), which must hold zeros, and returns how many samples sounded."""
        tape = _Tape(out)
        for channel, event in _in_order(parts):
            self._process(tape, int(event.time_s * self.rate) // BLOCK * BLOCK)
            self._send(channel, event)
        while tape.now < out.shape[2]:
            self._process(tape, min(tape.now + 32 * BLOCK, out.shape[2]))
            if self.lib.fluid_synth_get_active_voice_count(self.synth) == 0:
                tape.flush()
                return tape.now
        tape.flush()
        fade = min(round(_FADE_S * self.rate), tape.now)
        for stem in out[:, :, tape.now - fade : tape.now]:
            if stem.any():
                stem *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        return tape.now

    def _process(self, tape: "_Tape", until: int) -> None:
        """Plays on up to the sample `until`; FluidSynth adds to what it is given."""
        while tape.now < until:
            samples = min(until - tape.now, tape.room())
            pointers = tape.sides + np.uintp(4 * tape.filled)
            self.lib.fluid_synth_process(self.synth, samples, 0, None, len(pointers), pointers.ctypes.data)
            tape.advance(samples)

    def _send(self, channel: int, event: Event) -> None:
        lib, synth, message = self.lib, self.synth, event.message
        if message.type == "note_on":
            lib.fluid_synth_noteon(synth, channel, message.note, message.velocity)
        elif message.type == "note_off":
            lib.fluid_synth_noteoff(synth, channel, message.note)
        elif message.type == "control_change":
            lib.fluid_synth_cc(synth, channel, message.control, message.value)
        elif message.type == "pitchwheel":
            lib.fluid_synth_pitch_bend(synth, channel, message.pitch + 8192)
        elif message.type == "aftertouch":
            lib.fluid_synth_channel_pressure(synth, channel, message.value)
