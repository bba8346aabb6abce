"""Plays along with what an audio device hears: the device's callback moves blocks, one worker plays.

Time is counted in the device's samples since it began. What is heard goes into one ring, answers into another, and a
sample's place in either is its time: an answer is to sound so long after the hop that it answers began. What is not
there by then is silence, and is not played later: the music goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.errors import AudioError, RunError
from train.live import Performance, Player
from train.sound import SILENCE_LUFS, Audio, Fit, Meter, Resampler, gain_db, level_note

BEHIND_FRAMES = 8  # a worker that is further behind gives up what waits, and goes on with the present
MAX_BUDGET_S = 1.0


@dataclass(frozen=True)
class Level:
    """The input's loudness, as announced or as measured for so many seconds before playing; neither: as it comes."""

    lufs: float | None = None
    calibrate_s: float = 0.0


class Ring:
    """The last `capacity` samples of an endless stream, written by one thread and read by another.

    A reader copies, and looks at `end` again after that, so that the device's callback never waits for a lock.
    """

    def __init__(self, channels: int, capacity: int) -> None:
        self._data = np.zeros((channels, capacity), np.float32)
        self.end = 0  # how many samples were ever written

    def write(self, block: Audio) -> None:
        """(channels, samples), no more than the capacity."""
        self._data[:, np.arange(self.end, self.end + block.shape[1]) % self._data.shape[1]] = block
        self.end += block.shape[1]

    def skip(self, count: int) -> None:
        """`count` samples of silence, any number."""
        self.write(np.zeros((len(self._data), min(count, self._data.shape[1])), np.float32))
        self.end += max(0, count - self._data.shape[1])

    def read(self, start: int, count: int) -> tuple[Audio, int]:
        """`count` samples from `start` on, silence for those not written yet or written over; how many these are."""
        capacity, written, places = self._data.shape[1], self.end, np.arange(start, start + count)
        block = self._data[:, places % capacity]
        gone = (places >= written) | (places < self.end - capacity)
        block[:, gone] = 0
        return block, int(gone.sum())


class Duet:
    """A player and a device: `callback` is the device's, `work` is called over and over by one other thread."""

    def __init__(
        self, performance: Performance, rate: int, channels: tuple[int, int], calibrate_s: float = 0.0
    ) -> None:
        identity = performance.player.identity
        self.performance, self.rate = performance, rate
        self._hop = identity.hop * rate / identity.sample_rate
        self._outputs, self.fit = channels[1], Fit(rate, channels[0], identity)
        self._back = Resampler(identity.sample_rate, rate, identity.channels)
        behind, ahead = round(BEHIND_FRAMES * self._hop), round(performance.player.anticipation_frames * self._hop)
        self._heard = Ring(channels[0], behind)
        self._answers = Ring(identity.channels, 2 * behind + ahead + round(MAX_BUDGET_S * rate))
        self._meter, self._listen = Meter(identity.sample_rate, identity.channels), round(calibrate_s * rate)
        self._clock, self._taken = 0, 0
        self._late, self._silent, self._skipped, self._faults = 0, 0, 0, 0
        self.awake = threading.Event()

    def lead(self, seconds: float) -> None:
        """Answers are to sound that long after the hop that they answer began. To be said before the device begins."""
        self._answers.skip(round(seconds * self.rate))

    def callback(self, heard: Audio, played: Audio, frames: int, time: object, status: object) -> None:
        """PortAudio's, (samples, channels) both."""
        self._faults += bool(status)
        self._heard.write(np.where(np.isfinite(heard), heard, 0).T)  # NaN would stay for as long as is remembered
        block, missing = self._answers.read(self._clock, frames)
        played[:] = block.T if len(block) == self._outputs else block.mean(axis=0)[:, None]
        self._clock += frames
        self._silent += missing
        self.awake.set()

    def work(self) -> None:
        """Takes what was heard since the last call, and answers it."""
        count = self._heard.end - self._taken
        block, lost = self._heard.read(self._taken, count)
        self._taken += count
        if lost:
            self._skipped += count
            self._answers.skip(count)
        elif self._listen > 0:
            self._calibrate(block)
        else:
            for answer in self.performance.hear(self.fit(block)):
                self._late += self._clock > self._answers.end
                self._answers.write(self._back(answer))

    def _calibrate(self, block: Audio) -> None:
        self._meter.feed(self.fit(block))
        self._answers.skip(block.shape[1])
        self._listen -= block.shape[1]
        if self._listen > 0:
            return
        if self._meter.lufs <= SILENCE_LUFS:
            raise AudioError(
                f"the input was silent while it was measured ({self._meter.lufs:.1f} LUFS); play meanwhile, or choose "
                "another --device-in"
            )
        self.performance.gain_db = gain_db(self._meter.lufs)

    @property
    def calibrated(self) -> str | None:
        """A line on the loudness that was measured, once it is."""
        if self._listen > 0 or self._meter.lufs <= SILENCE_LUFS:
            return None
        return level_note(self._meter.lufs) + f"; --input-lufs {self._meter.lufs:.1f} spares measuring it"

    def report(self) -> list[str]:
        """Of what went wrong, and how long each part took."""
        hops = len(self.performance.latency.seconds)
        lines = [self.performance.latency.table()] if hops else []
        lines.append(
            f"underruns: {self._late} of {hops} answers came too late, {1000 * self._silent / self.rate:.0f} ms were "
            f"silent for that; overruns: {self._skipped / self._hop:.0f} frames were never heard; "
            f"the device itself told of {self._faults}"
        )
        return [*self.performance.notes, *lines]


def play(
    player: Player,
    devices: tuple[str | int | None, str | int | None],
    level: Level,
    budget_s: float,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Play until Ctrl-C or until the device ends, then report. Raises RunError where there is no such device.

    `budget_s` is how long an answer may take; the anticipation makes up for it and for the device's own latency, as far
    as it goes.
    """
    device, identity, ended = _sounddevice(), player.identity, threading.Event()
    performance = Performance(player, seed, gain_db(level.lufs) if level.lufs is not None else 0.0)
    with _told(device):
        rate, channels = _settings(device, devices, identity.sample_rate)
        duet = Duet(performance, rate, channels, level.calibrate_s)
        stream = device.Stream(
            samplerate=rate,
            device=devices,
            channels=channels,
            dtype="float32",
            latency="low",
            callback=duet.callback,
            finished_callback=ended.set,
        )
    delay_s, spare_s = sum(stream.latency), (player.anticipation_frames - 1) / identity.frame_rate
    budget_s = max(budget_s, spare_s - delay_s)
    duet.lead(1 / identity.frame_rate + budget_s)
    lines = [*duet.fit.notes, level_note(level.lufs) if level.lufs is not None else ""]
    lines.append(
        f"an answer sounds {1000 * (budget_s + delay_s - spare_s):.0f} ms after the moment it is meant for: "
        f"{1000 * budget_s:.0f} ms to find it and {1000 * delay_s:.0f} ms of the device, less "
        f"{1000 * spare_s:.0f} ms, the anticipation beyond one frame"
    )
    say("\n".join([*filter(None, lines), "playing; Ctrl-C ends"]))
    try:
        with _working(duet, ended), _told(device), stream:
            _wait(duet, ended, say)
    finally:
        say("\n".join(duet.report()))


def _wait(duet: Duet, ended: threading.Event, say: Callable[[str], None]) -> None:
    told = False
    try:
        while not ended.wait(0.1):
            if not told and (line := duet.calibrated):
                told = True
                say(line)
    except KeyboardInterrupt:
        pass


@contextmanager
def _working(duet: Duet, ended: threading.Event) -> Iterator[None]:
    """The worker's life; what stops it ends the performance and is raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not leaving.is_set():
                duet.awake.wait(0.1)
                duet.awake.clear()
                duet.work()
        except Exception as error:
            failed.append(error)
            ended.set()

    leaving, worker = threading.Event(), threading.Thread(target=run, name="player")
    worker.start()
    try:
        yield
    finally:
        leaving.set()
        worker.join()
    if failed:
        raise failed[0]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise RunError("--live needs the package sounddevice: pip install 'greenroom[live]'") from None
    except OSError:
        raise RunError(
            "sounddevice finds no PortAudio library; Debian has it in libportaudio2, Homebrew in portaudio"
        ) from None
    return sounddevice


def _settings(device: Any, devices: tuple[Any, Any], rate: int) -> tuple[int, tuple[int, int]]:
    """The codec's rate where both devices take it, else the input's own; channels, at most two."""
    found = [device.query_devices(each, kind) for each, kind in zip(devices, ("input", "output"), strict=True)]
    channels = min(2, found[0]["max_input_channels"]), min(2, found[1]["max_output_channels"])
    try:
        device.check_input_settings(devices[0], channels=channels[0], samplerate=rate)
        device.check_output_settings(devices[1], channels=channels[1], samplerate=rate)
        return rate, channels
    except device.PortAudioError:
        return int(found[0]["default_samplerate"]), channels


@contextmanager
def _told(device: Any) -> Iterator[None]:
    try:
        yield
    except (device.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"the audio device cannot be had ({reason}); `python -m sounddevice` lists those for --device-in and "
            "--device-out"
        ) from None
