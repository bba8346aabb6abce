"""Where the onsets of augmented stems lie, of instruments whose notes are known.

`python -m tests.bench.onsets [folder of MIDI] [--soundfont F] [--songs N] [--seconds S]` stretches rendered stems and
holds each against the same song rendered at the other tempo (and resampled by the pitch's ratio), where every note is
in its place to the sample. How an attack looks is the rise, in eight octave bands, of spectra of 12 ms around where the
stem and the reference both sound; how far it lies from its place is the lag at which these rises agree best. An onset
counts if some band rises by 6 dB within 20 ms, to no less than 50 dB below the loudest there and 60 below the stem's
loudest, and if the unstretched stem agrees with the reference (correlation of 0.7) at a lag below 1.5 ms and at no
other lag three quarters as well, nor the reference with itself: what cannot be placed where nothing was stretched,
cannot be placed. That leaves out low notes whose periods look like their beginning. It is missed if no lag within
30 ms gives a correlation of 0.5.

A sample that begins faintly before its attack (45 ms in FluidR3's fingered bass) is judged wrongly: the reference keeps
its beginning as long as the pitch makes it, the factor shortens it, and the measure sees both ends of it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import soxr
from scipy import signal

from prep.compose import compose
from prep.instruments import DRUMS, class_of_program
from prep.midi import Part, Song, read_song, transposed
from prep.render import default_soundfont
from prep.stages.augment import Augmentation, augment
from prep.stages.render import BLOCK, render

RATE = 44100
WAYS = [(0.8, 0), (1.2, 0), (0.93, 2), (1.0, 4), (1.0, -4), (0.8, 4), (1.2, -4)]
Found = dict[str, list[tuple[int, np.ndarray]]]

WINDOW = 512
HOP = 22  # 0.5 ms
BANDS = [0, 2, 4, 8, 16, 32, 64, 128]  # first bins of the bands, of 86 Hz each
AROUND, LAGS = 50, 60  # hops
RISE = 10  # hops from before to after
UNIQUE = 0.75  # of the best agreement, the most that another lag may have


def rises(audio: np.ndarray, places: np.ndarray) -> np.ndarray:
    """dB by which each band rises over 5 ms around each hop: (places, bands, 2 (AROUND + LAGS) + 1)."""
    reach = AROUND + LAGS + RISE // 2
    first = np.rint(places).astype(int) - reach * HOP - WINDOW // 2
    padded = np.pad(audio, 1 << 15)
    segments = padded[(first + (1 << 15))[:, None] + np.arange(2 * reach * HOP + WINDOW)]
    frames = np.lib.stride_tricks.sliding_window_view(segments, WINDOW, axis=1)[:, ::HOP]
    power = np.abs(np.fft.rfft(frames * signal.windows.hann(WINDOW))) ** 2
    bands = np.add.reduceat(power, BANDS, axis=2)
    loudest = np.square(audio.max(initial=0)) * WINDOW**2 / 16
    floor = np.maximum(bands.max(axis=(1, 2)) * 1e-5, loudest * 1e-6 + 1e-20)
    levels = 10 * np.log10(np.maximum(bands, floor[:, None, None]))
    return np.clip(levels[:, RISE:] - levels[:, :-RISE], 0, 20).transpose(0, 2, 1)


def lags_ms(wanted: np.ndarray, had: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By how much later `had` rises than `wanted`, how far they agree then (0 to 1), and at the next best peak."""
    weights = signal.windows.hann(2 * AROUND + 1)
    pattern = wanted[:, :, LAGS:-LAGS]
    shifted = np.lib.stride_tricks.sliding_window_view(had, 2 * AROUND + 1, axis=2)
    product = np.einsum("nbw,nblw,w->nl", pattern, shifted, weights)
    norm = np.einsum("nbw,w->n", pattern**2, weights)[:, None] * np.einsum("nblw,w->nl", shifted**2, weights)
    # a whit of an advantage for being in place, where lags do as well
    agree = product / np.sqrt(norm + 1e-9) - 1e-4 * np.abs(np.arange(-LAGS, LAGS + 1))
    best = agree.argmax(axis=1)[:, None]
    beside = np.pad(agree, ((0, 0), (1, 1)))
    peaks = (agree >= beside[:, :-2]) & (agree > beside[:, 2:]) & (np.arange(2 * LAGS + 1) != best)
    second = np.where(peaks, agree, 0).max(axis=1)
    return (best[:, 0] - LAGS) * HOP / RATE * 1e3, np.take_along_axis(agree, best, axis=1)[:, 0], second


def onset_times(part: Part) -> np.ndarray:
    """Notes that begin within 10 ms of each other are one onset."""
    times: list[float] = []
    for event in part.events:
        if event.message.type == "note_on" and (not times or event.time_s > times[-1] + 0.01):
            times.append(event.time_s)
    return np.array(times)


def sounded(times: np.ndarray) -> np.ndarray:
    return (times * RATE).astype(int) // BLOCK * BLOCK


def delays(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many samples after its note an attack sounds: the middle of the rises that both renderings have."""
    both = (own * wanted).sum(axis=1)[:, LAGS:-LAGS] * signal.windows.hann(2 * AROUND + 1)
    return both @ np.arange(-AROUND, AROUND + 1) / (both.sum(axis=1) + 1e-9) * HOP


def count(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which onsets count, by the rises of the stem and of the reference."""
    # a rise over 20 ms is no less than one over 5 ms within it
    steep = own[:, :, AROUND + LAGS - RISE : AROUND + LAGS + 40].max(axis=(1, 2)) >= 6
    lag, agree, second = lags_ms(wanted, own)
    again = lags_ms(wanted, wanted)[2]
    return steep & (np.abs(lag) < 1.5) & (agree > 0.7) & (second < UNIQUE * agree) & (again < UNIQUE)


def beginning(song: Song, seconds: float) -> Song:
    parts = [replace(p, events=tuple(e for e in p.events if e.time_s < seconds)) for p in song.parts]
    return replace(song, parts=tuple(p for p in parts if len(onset_times(p))))


def measure(song: Song, font: Path, found: Found, ways: list[tuple[float, int]]) -> None:
    """Adds, by class and stem, how many onsets there are and by how many ms those that count are off, nan if missed."""
    fonts = [font] * len(song.parts)
    stems = render(song.parts, fonts, 1, RATE, 1.0).stems[:, 0]
    for speed, semitones in ways:
        ratio = 2 ** (semitones / 12)
        references = render(transposed(song, 0, speed / ratio, False)[0].parts, fonts, 1, RATE, 1.0).stems[:, 0]
        for part, stem, reference in zip(song.parts, stems, references, strict=True):
            times = onset_times(part)
            at, there = sounded(times), sounded(times / speed * ratio) / ratio
            pitched = soxr.resample(reference, ratio, 1)
            # the reference begins its sounds at the note, the factor moves where they sound
            delay = delays(rises(stem, at), rises(pitched, there))
            own, wanted = rises(stem, at + delay), rises(pitched, there + delay / ratio)
            used = count(own, wanted)
            out = augment(stem[None], RATE, Augmentation(speed, semitones, True), part.program == DRUMS)[0]
            lag, agree, _ = lags_ms(wanted[used], rises(out, (at + delay)[used] / speed))
            name = "Drums" if part.program == DRUMS else class_of_program(part.program)
            found[name].append((len(at), np.where(agree < 0.5, np.nan, lag)))


def report(name: str, rows: list[tuple[int, np.ndarray]]) -> None:
    off = np.concatenate([lags for _, lags in rows])
    onsets, missed = sum(number for number, _ in rows), np.isnan(off)
    far = np.abs(off[~missed])
    if len(far):
        figures = f"{np.median(far):.1f} | {np.quantile(far, 0.99):.1f} | {far.max():.1f}"
        late = np.mean(~(np.abs(off) <= 5))
        print(f"| {name} | {onsets} | {len(off) / onsets:.0%} | {figures} | {missed.sum()} | {late:.2%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", help="of MIDI files; composed songs where none is given")
    parser.add_argument("--soundfont", type=Path, default=default_soundfont())
    parser.add_argument("--songs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(args.folder.rglob("*.mid")) if args.folder else compose(Path(folder), args.songs, 1)
        songs = [song for song in map(read_song, paths[: args.songs]) if isinstance(song, Song)]
    for song in songs:
        measure(beginning(song, args.seconds), args.soundfont, found, WAYS)
    print("| class | onsets | count | median ms | 99 % ms | worst ms | missed | over 5 ms |\n|" + 8 * "---|")
    for name, rows in sorted(found.items()):
        report(name, rows)
    report("all", [row for rows in found.values() for row in rows])


if __name__ == "__main__":
    main()
