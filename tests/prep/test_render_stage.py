"""What FluidSynth does with the events: controllers act, stems stay apart, releases are kept."""

import ctypes
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from numpy.typing import NDArray

from prep.errors import PrepError
from prep.midi import Song, read_song
from prep.render import default_soundfont
from prep.stages import render as synth
from prep.stages.render import render

RATE = 44100


pytestmark = pytest.mark.usefixtures("fluidsynth")


def write(path: Path, *tracks: list[Any]) -> Path:
    file = mido.MidiFile(type=1, ticks_per_beat=500)  # at 120 a minute a tick is a millisecond
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)
    return path


def tone(
    program: int, channel: int, *before: mido.Message, pitch: int = 69, velocity: int = 90, ms: int = 1000
) -> list[Any]:
    return [
        mido.Message("program_change", program=program, channel=channel),
        *(message.copy(channel=channel) for message in before),
        mido.Message("note_on", note=pitch, velocity=velocity, channel=channel),
        mido.Message("note_off", note=pitch, channel=channel, time=ms),
    ]


def play(path: Path, *tracks: list[Any], channels: int = 2) -> NDArray[np.float32]:
    song = read_song(write(path, *tracks))
    assert isinstance(song, Song)
    return render(song.parts, [default_soundfont()] * len(song.parts), channels).stems


def level_db(audio: NDArray[np.float32], start_s: float = 0.1, end_s: float = 0.9) -> float:
    piece = audio[..., int(start_s * RATE) : int(end_s * RATE)].astype(np.float64)
    return float(10 * np.log10(np.mean(piece**2) + 1e-20))


def pitch_hz(audio: NDArray[np.float32], start_s: float, end_s: float) -> float:
    piece = audio[0, int(start_s * RATE) : int(end_s * RATE)]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 18))
    return float(np.argmax(spectrum) * RATE / (1 << 18))


def control(number: int, value: int) -> mido.Message:
    return mido.Message("control_change", control=number, value=value)


OCARINA, ORGAN, PIANO, PAD = 79, 19, 0, 89


def test_velocity_volume_expression_and_pan_act(tmp_path: Path) -> None:
    loud, soft, quiet, faint, left = play(
        tmp_path / "a.mid",
        tone(PIANO, 0, velocity=110),
        tone(PIANO, 1, velocity=50),
        tone(PIANO, 2, control(7, 50), velocity=110),
        tone(PIANO, 3, control(11, 30), velocity=110),
        tone(PIANO, 4, control(10, 0), velocity=110),
    )
    assert level_db(loud) - level_db(soft) > 6
    assert level_db(loud) - level_db(quiet) > 6
    assert level_db(loud) - level_db(faint) > 12
    assert level_db(left[0]) - level_db(left[1]) > 20


def test_bends_act(tmp_path: Path) -> None:
    straight, bent = play(
        tmp_path / "a.mid", tone(OCARINA, 0), tone(OCARINA, 1, mido.Message("pitchwheel", pitch=4096))
    )
    assert pitch_hz(straight, 0.2, 0.9) == pytest.approx(440, rel=0.006)
    # half the wheel is a semitone of the usual two
    assert pitch_hz(bent, 0.2, 0.9) / pitch_hz(straight, 0.2, 0.9) == pytest.approx(2 ** (1 / 12), rel=0.003)


def test_the_pedal_holds_and_a_release_rings(tmp_path: Path) -> None:
    dry, held = play(
        tmp_path / "a.mid",
        tone(PIANO, 0, ms=300),
        [
            *tone(PIANO, 1, control(64, 127), ms=300),
            mido.Message("control_change", control=64, value=0, channel=1, time=1700),
        ],
    )
    assert level_db(held, 1.0, 1.5) - level_db(dry, 1.0, 1.5) > 25
    # up again at 2 s: without that the string would ring until the tail is cut, at 7 s
    assert 2.0 < held.shape[1] / RATE < 4.0
    # the note does not stop dead at its end, at 0.3 s
    assert level_db(dry, 0.3, 0.35) > level_db(dry, 0.1, 0.3) - 20


def test_rendering_ends_when_all_is_quiet_or_after_the_tail(tmp_path: Path) -> None:
    short = play(tmp_path / "a.mid", tone(ORGAN, 0), tone(OCARINA, 1))
    assert 1.0 < short.shape[2] / RATE < 1.0 + synth.TAIL_S
    stuck = play(tmp_path / "b.mid", tone(ORGAN, 0, control(64, 127)), tone(OCARINA, 1))
    assert stuck.shape[2] == pytest.approx((1.0 + synth.TAIL_S) * RATE, abs=synth.BLOCK)
    # the organ that still sounds is faded, not cut
    assert level_db(stuck[0], 5.0, 5.8) > -60 and np.abs(stuck[0, :, -8:]).max() < 1e-3


def test_stems_are_alone_and_the_same_alone(tmp_path: Path) -> None:
    tracks = tone(PIANO, 0), tone(PAD, 1, pitch=60), tone(0, 9, pitch=38)
    together = play(tmp_path / "a.mid", *tracks)
    assert np.isfinite(together).all() and (np.abs(together).max((1, 2)) > 0.01).all()
    for stem, track in zip(together, tracks, strict=True):
        alone = play(tmp_path / "b.mid", track)[0]
        length = min(stem.shape[1], alone.shape[1])
        # voices may be summed in another order
        assert np.abs(stem[:, :length] - alone[:, :length]).max() < 1e-6
    mono = play(tmp_path / "a.mid", *tracks, channels=1)
    assert np.allclose(mono[:, 0], together.mean(axis=1), atol=1e-7)


def test_drums_play_on_their_kit(tmp_path: Path) -> None:
    """TimGM6mb has a kit 25, by General MIDI's channel 10 or by XG's bank 127 elsewhere, and no kit 90."""

    def snare(program: int, channel: int, second: int, *before: mido.Message) -> list[Any]:
        first, *rest = tone(program, channel, *before, pitch=40, ms=200)
        return [first.copy(time=1000 * second), *rest]

    tracks = snare(0, 9, 0), snare(25, 9, 1), snare(25, 2, 2, control(0, 127)), snare(90, 9, 3), snare(0, 3, 0)
    song = read_song(write(tmp_path / "a.mid", *tracks))
    assert isinstance(song, Song)
    rendering = render(song.parts, [default_soundfont()] * 5)
    starts = [synth.BLOCK * (second * RATE // synth.BLOCK) for second in (0, 1, 2, 3, 0)]
    # without the first 5 ms: a voice that FluidSynth uses again begins a little otherwise than a fresh one
    pieces = [stem[:, at + RATE // 200 : at + RATE // 5] for stem, at in zip(rendering.stems, starts, strict=True)]
    standard, electronic, xg, lacking, piano = pieces
    assert np.allclose(electronic, xg, atol=1e-4) and np.allclose(standard, lacking, atol=1e-4)
    assert rendering.fallbacks == (3,)
    for other in (electronic, piano):
        assert np.abs(standard - other).max() > 0.01


def test_a_song_is_one_pass_of_the_synthesiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(synth._Synth):
        def __init__(self, parts: int, rate: int) -> None:
            made.append(parts)
            super().__init__(parts, rate)

    monkeypatch.setattr(synth, "_Synth", Counted)
    play(tmp_path / "a.mid", *(tone(OCARINA, i % 9, ms=50) for i in range(20)))
    assert made == [20]


def test_more_parts_than_one_pass_holds(tmp_path: Path) -> None:
    tracks = [tone(OCARINA, i % 9, pitch=40 + i % 40, ms=100) for i in range(synth._PASS + 3)]
    stems = play(tmp_path / "a.mid", *tracks)
    assert len(stems) == synth._PASS + 3 and (np.abs(stems).max((1, 2)) > 1e-3).all()


def test_a_bank_that_the_soundfont_lacks_falls_back(tmp_path: Path) -> None:
    song = read_song(
        write(tmp_path / "a.mid", tone(PIANO, 0), tone(PIANO, 1, control(0, 77), mido.Message("program_change")))
    )
    assert isinstance(song, Song) and [part.bank for part in song.parts] == [0, 77]
    rendering = render(song.parts, [default_soundfont()] * 2)
    assert rendering.fallbacks == (1,)
    assert np.array_equal(rendering.stems[0], rendering.stems[1])


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise OSError(name)

    synth.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", gone)
    with pytest.raises(PrepError, match="Debian: apt install libfluidsynth3"):
        synth.library()
    monkeypatch.undo()
    assert synth.library()
