"""How fast each stage is on one core, beside what a user would call instead in the same run.

`python -m tests.bench.stages` prints a Markdown table of stem-seconds a second of processor time, medians of
interleaved repeats on one thread, and how far the results agree. The stems are made: decaying notes over a noise floor,
with pauses that are not digital silence, so that nothing can be skipped. "mono" is one channel, "expanded" the same on
two, "stereo" two that differ.
"""

from __future__ import annotations

import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pyloudnorm
import soundfile
import torch
from threadpoolctl import threadpool_limits

from prep.audio import read_audio
from prep.codecs import Codec, load_codec
from prep.stages.activity import active, levels_db
from prep.stages.loudness import integrated_lufs, true_peak
from prep.stages.meter import Meter
from prep.stages.mixing import mix_audio

RATE = 44100
SECONDS = 60
REPEATS = 9
MIXED = 8  # stems of a mix
BLOCK = 1 << 18  # samples a meter is fed at a time
# A Hann window, whose loss librosa's rms does not make up for
HANN_DB = 10 * np.log10(3 / 8)


@dataclass(frozen=True)
class Row:
    """`ours` and `theirs` do the same to as many stem-seconds; `agree` says how far the results do."""

    stage: str
    stem_s: float
    ours: Callable[[], object]
    other: str = ""
    theirs: Callable[[], object] | None = None
    agree: Callable[[], str] = lambda: ""


def made(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """A stereo stem, float32 (2, samples)."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE)) / RATE
    note = (time_s / 0.5).astype(int)
    pitch = 55 * 2 ** (rng.integers(0, 48, note[-1] + 1) / 12)[note]
    level = (10 ** rng.uniform(-2.5, -0.5, note[-1] + 1) * (rng.random(note[-1] + 1) < 0.8))[note]
    decay = level * np.exp(-6 * (time_s % 0.5))
    tone = sum(np.sin(2 * np.pi * k * pitch * time_s) / k for k in range(1, 6))
    noise = rng.standard_normal((2, len(time_s)))
    return np.asarray(decay * (tone + 0.3 * noise) + 3e-5 * noise, np.float32)


def smg_levels_db(audio: np.ndarray) -> np.ndarray:
    """Levels as StreamMusicGen has them, of one channel after the other (quicker than both at once): mean power."""
    return np.asarray(10 * np.log10(np.mean([10 ** (smg_level_db(channel) / 10) for channel in audio], axis=0)))


def smg_level_db(channel: np.ndarray) -> np.ndarray:
    """A-weighted STFT, hop of 20 ms, windows of two hops."""
    hop = RATE // 50
    spectra = np.abs(librosa.stft(channel, n_fft=2 * hop, hop_length=hop))
    weights_db = librosa.A_weighting(librosa.fft_frequencies(sr=RATE, n_fft=2 * hop))
    weighted = spectra * librosa.db_to_amplitude(weights_db)[:, None]
    rms = librosa.feature.rms(S=weighted, frame_length=2 * hop, hop_length=hop)
    return np.asarray(librosa.amplitude_to_db(rms[0]))


def levels_agree(audio: np.ndarray) -> str:
    """Theirs are centred on our frames' edges, so the power of two neighbours is averaged."""
    ours = levels_db(audio, RATE)
    power = 10 ** ((smg_levels_db(audio) - HANN_DB) / 10)
    theirs = 10 * np.log10((power[:-1] + power[1:]) / 2)[: len(ours)]
    same = np.mean(active(ours) == active(theirs))
    apart = np.median(np.abs(ours - theirs)[active(ours)])
    return f"{100 * same:.1f} % of verdicts at -60 dB the same, levels {apart:.2f} dB apart (median where active)"


def loudness_agrees(audios: list[np.ndarray]) -> str:
    meter = pyloudnorm.Meter(RATE, filter_class="DeMan")
    apart = [abs(integrated_lufs(audio, RATE) - meter.integrated_loudness(audio.T)) for audio in audios]
    return f"{max(apart):.1e} LU apart at most"


def metered(audio: np.ndarray) -> Meter:
    meter = Meter(RATE, *audio.shape, true_peak=True)
    for start in range(0, audio.shape[1], BLOCK):
        meter.feed(audio[:, start : start + BLOCK])
    meter.lufs(), meter.levels_db(), meter.true_peak
    return meter


def encoded(codec: Codec, audio: np.ndarray) -> None:
    """As the build does it: 64 frames a call, the state carried over."""
    step, state = 64 * codec.identity.hop, codec.encode_state(1)
    with torch.inference_mode():
        for start in range(0, audio.shape[1] - step + 1, step):
            _, state = codec.encode_step(torch.from_numpy(audio[None, :, start : start + step].copy()), state)


def measuring_rows(mono: np.ndarray, stereo: np.ndarray) -> list[Row]:
    expanded = np.repeat(mono, 2, axis=0)
    loudnorm = pyloudnorm.Meter(RATE, filter_class="DeMan")
    rows = []
    for name, audio in (("mono", mono), ("expanded", expanded), ("stereo", stereo)):
        ours, theirs = partial(levels_db, audio, RATE), partial(smg_levels_db, audio)
        rows.append(Row(f"activity, {name}", SECONDS, ours, "librosa", theirs, partial(levels_agree, audio)))
        ours, theirs = partial(integrated_lufs, audio, RATE), partial(loudnorm.integrated_loudness, audio.T)
        rows.append(Row(f"loudness, {name}", SECONDS, ours, "pyloudnorm", theirs, partial(loudness_agrees, [audio])))
        rows.append(Row(f"true peak, {name}", SECONDS, partial(true_peak, audio, RATE)))
        rows.append(Row(f"meter (all three), {name}", SECONDS, partial(metered, audio)))
    return rows


def other_rows(stereo: np.ndarray, folder: Path) -> list[Row]:
    path = folder / "stem.flac"
    soundfile.write(path, stereo.T, RATE, subtype="PCM_16")
    stems = [np.roll(stereo, k * 1000, axis=1) for k in range(MIXED)]
    mix = partial(mix_audio, stems, [-3.0] * MIXED, range(MIXED))
    plain = partial(soundfile.read, path, dtype="float32")
    codec, alike = load_codec("causal"), np.repeat(stereo[:1], 2, axis=0)
    rows = [
        Row("read FLAC, stereo", SECONDS, partial(read_audio, path), "soundfile, no checks", plain),
        Row(f"mix, {MIXED} stereo stems", MIXED * SECONDS, mix, "numpy sum", lambda: np.sum(stems, axis=0)),
        Row("encode, expanded", SECONDS, partial(encoded, codec, alike)),
        Row("encode, stereo", SECONDS, partial(encoded, codec, stereo)),
    ]
    try:
        from prep.stages.augment import Augmentation, augment
    except ImportError:
        return rows
    pitched = Augmentation(speed=0.9, semitones=2.0)
    coloured = Augmentation(bands=((100.0, 3.0, 1.0), (1000.0, -3.0, 1.0), (5000.0, 3.0, 1.0)), low_pass_hz=8000.0)
    for name, change in (("speed and pitch", pitched), ("equaliser", coloured)):
        rows.append(Row(f"augment ({name}), stereo", SECONDS, partial(augment, stereo, RATE, change, False)))
    return rows


def measure(rows: list[Row]) -> list[tuple[float, float, float]]:
    """Median seconds of ours and theirs, and of theirs over ours; all take turns: a busy moment hits them alike."""
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in rows]
    for _ in range(REPEATS + 1):
        for row, taken in zip(rows, times, strict=True):
            for function, seconds in zip((row.ours, row.theirs), taken, strict=True):
                started = time.process_time()
                if function is not None:
                    function()
                seconds.append(time.process_time() - started)
    # the first turn warms up
    pairs = [np.array(both)[:, 1:] for both in times]
    return [(*np.median(both, axis=1).tolist(), float(np.median(both[1] / both[0]))) for both in pairs]


def main() -> None:
    warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning, "librosa")
    torch.set_num_threads(1)
    stereo = made(1)
    mono = stereo[:1].copy()
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        rows = measuring_rows(mono, stereo) + other_rows(stereo, Path(folder))
        seconds = measure(rows)
        print(f"Stem-seconds a second, one core ({platform.machine()}), medians of {REPEATS}, {SECONDS} s a stem\n")
        print("| stage | here | instead | theirs | times faster | agreement |\n|---|---|---|---|---|---|")
        for row, (ours, theirs, faster) in zip(rows, seconds, strict=True):
            beside = f"{row.other} | {row.stem_s / theirs:.0f} | {faster:.1f}" if row.theirs else "| |"
            print(f"| {row.stage} | {row.stem_s / ours:.0f} | {beside} | {row.agree()} |")


if __name__ == "__main__":
    main()
