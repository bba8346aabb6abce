"""The device is made: it calls the callback with what it is given, and keeps what the callback plays."""

import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tests.train.made import HOP, RATE
from tests.train.test_live import CODEC, parallel, trained, tune
from train.device import BEHIND_FRAMES, Duet, Level, Ring, play
from train.errors import AudioError, RunError
from train.live import Performance, Player
from train.sound import gain_db

BASS = Player.of(CODEC, trained(1), "Bass")
LEAD = 1 / CODEC.identity.frame_rate  # an answer begins where its hop ends


def duet(rate: int = RATE, channels: tuple[int, int] = (2, 2), lead_s: float = LEAD, **options: Any) -> Duet:
    made = Duet(Performance(BASS, 3), rate, channels, **options)
    made.lead(lead_s)
    return made


def through(duet: Duet, heard: np.ndarray, sizes: list[int], outputs: int = 2, work: bool = True) -> np.ndarray:
    """What the device plays while it hears (channels, samples) in blocks of these sizes over and over, the worker
    keeping up."""
    played, start, turn = np.full((outputs, heard.shape[1]), np.nan, np.float32), 0, 0
    while start < heard.shape[1]:
        end = min(start + sizes[turn % len(sizes)], heard.shape[1])
        buffer = np.full((end - start, outputs), np.nan, np.float32)
        duet.callback(np.ascontiguousarray(heard[:, start:end].T), buffer, end - start, None, None)
        played[:, start:end] = buffer.T
        if work:
            duet.work()
        start, turn = end, turn + 1
    return played


def counts(duet: Duet) -> str:
    return duet.report()[-1]


NOTHING_WRONG = (
    "underruns: 0 of {} answers came too late, 0 ms were silent for that; overruns: 0 frames were never heard; "
    "the device itself told of 0"
)


@pytest.mark.parametrize("sizes", [[HOP], [128], [1000, 37, 2500], [3 * HOP + 1]])
def test_whatever_the_devices_blocks_it_plays_what_it_would_to_a_file(sizes: list[int]) -> None:
    mix, block = tune(20), max(sizes)  # a block is played before it is answered
    pair = duet(lead_s=(HOP + block) / RATE)
    played = through(pair, mix, sizes)
    np.testing.assert_allclose(played[:, block:], parallel(trained(1), mix, 3, 1)[:, :-block], atol=1e-5)
    assert np.abs(played).max() > 1e-3 and counts(pair) == NOTHING_WRONG.format(20)


def test_one_channel_is_heard_on_all_and_played_as_their_mean() -> None:
    mix, pair = tune(9, channels=1), duet(channels=(1, 1), lead_s=(HOP + 512) / RATE)
    played = through(pair, mix, [512], outputs=1)
    wanted = parallel(trained(1), np.repeat(mix, 2, axis=0), 3, 1).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(played[:, 512:], wanted[:, :-512], atol=1e-5)
    assert pair.fit.notes == ["the mix's 1 channels were averaged to one, on all 2 of the codec's"]


def test_a_device_of_another_rate_hears_and_plays_the_same_music() -> None:
    """At 48 kHz; the tones are low, so that the resampler leaves them as they are."""
    mix = tune(40, rate=48000)
    spare_s = 0.2  # the resamplers' own delay among it
    pair = duet(48000, lead_s=LEAD + spare_s)
    played = through(pair, mix, [480])
    wanted = parallel(trained(1), tune(40), 3, 1)
    late = round(spare_s * 48000)
    at = np.arange(RATE // 2, 3 * RATE)  # in the codec's samples
    again = np.stack([np.interp(at * 48000 / RATE + late, np.arange(played.shape[1]), row) for row in played])
    error = np.sqrt(np.mean((again - wanted[:, at]) ** 2) / np.mean(wanted[:, at] ** 2))
    assert error < 0.15 and "underruns: 0 of" in counts(pair)


def test_an_answer_that_is_late_is_silence_and_the_music_goes_on() -> None:
    mix, pair = tune(12), duet()
    played = [through(pair, mix[:, : 4 * HOP], [HOP])]
    played.append(through(pair, mix[:, 4 * HOP : 6 * HOP], [HOP], work=False))  # the worker sleeps over two hops
    pair.work()
    played.append(through(pair, mix[:, 6 * HOP :], [HOP]))
    wanted = parallel(trained(1), mix, 3, 1)
    wanted[:, 5 * HOP : 6 * HOP] = 0  # hop 4's answer; hop 5's is there when its turn comes
    np.testing.assert_allclose(np.concatenate(played, axis=1), wanted, atol=1e-5)
    silent_ms = round(1000 * HOP / RATE)
    assert f"underruns: 1 of 12 answers came too late, {silent_ms} ms were silent" in counts(pair)
    assert "overruns: 0 frames" in counts(pair)


def test_a_worker_far_behind_gives_up_what_waits_and_answers_the_present() -> None:
    asleep, pair = BEHIND_FRAMES + 3, duet()
    mix = tune(30)
    through(pair, mix[:, : asleep * HOP], [HOP], work=False)
    pair.work()
    assert f"overruns: {asleep} frames were never heard" in counts(pair)
    played = through(pair, mix[:, asleep * HOP :], [HOP])
    fresh = parallel(trained(1), mix[:, asleep * HOP :], 3, 1)
    np.testing.assert_allclose(played, fresh, atol=1e-5)


def test_the_device_s_own_faults_are_counted() -> None:
    pair = duet()
    pair.callback(np.zeros((9, 2), np.float32), np.zeros((9, 2), np.float32), 9, None, "input overflow")
    assert counts(pair).endswith("the device itself told of 1") and len(pair.report()) == 1


def test_a_sample_that_is_no_number_is_heard_as_silence() -> None:
    mix = tune(12)
    mix[0, 3 * HOP + 5], mix[1, 4 * HOP] = np.nan, np.inf
    played = through(duet(), mix, [HOP])
    np.testing.assert_array_equal(played, through(duet(), np.where(np.isfinite(mix), mix, 0), [HOP]))


def test_calibration_listens_then_plays_at_the_loudness_of_training() -> None:
    mix, pair = np.tile(0.05 * tune(20), 3), duet(calibrate_s=20 * HOP / RATE)
    assert pair.calibrated is None
    silent = through(pair, mix[:, : 20 * HOP], [HOP])
    assert not silent.any() and pair.calibrated is not None
    lufs = float(pair.calibrated.split(" LUFS")[0].split()[-1])
    assert lufs < -35 and pair.calibrated.endswith(f"--input-lufs {lufs:.1f} spares measuring it")
    assert pair.performance.gain_db == pytest.approx(gain_db(lufs), abs=0.05)
    played = through(pair, mix[:, 20 * HOP :], [HOP])
    raised = mix[:, 20 * HOP :] * np.float32(10 ** (pair.performance.gain_db / 20))
    np.testing.assert_allclose(played, parallel(trained(1), raised, 3, 1), atol=1e-5)


def test_silence_cannot_be_calibrated_on() -> None:
    with pytest.raises(AudioError, match=r"the input was silent while it was measured \(-inf LUFS\); play meanwhile"):
        through(duet(calibrate_s=0.5), np.zeros((2, RATE), np.float32), [HOP])


def test_a_ring_keeps_the_last_samples_and_tells_what_is_not_there() -> None:
    ring = Ring(1, 10)
    for start in range(0, 12, 4):
        ring.write(np.arange(start, start + 4, dtype=np.float32)[None])
    block, missing = ring.read(0, 14)
    assert missing == 4 and block[0].tolist() == [0, 0, *range(2, 12), 0, 0]
    ring.skip(25)
    assert ring.end == 37
    ring.write(np.ones((1, 1), np.float32))
    assert ring.read(36, 2)[0][0].tolist() == [0, 1] and ring.read(36, 2)[1] == 0


class PortAudioError(Exception):
    pass


@dataclass
class Fake:
    """The module sounddevice, of a device that has a mix to hear, and ends when that does, or at Ctrl-C."""

    mix: np.ndarray
    rate: int = RATE
    block: int = 512
    inputs: int = 2
    ending: Callable[["Fake"], None] = lambda fake: fake.options["finished_callback"]()
    latency: tuple[float, float] = (0.01, 0.02)
    played: list[np.ndarray] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    PortAudioError = PortAudioError

    def query_devices(self, device: object, kind: str) -> dict[str, Any]:
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"max_input_channels": self.inputs, "max_output_channels": 8, "default_samplerate": float(self.rate)}

    def check_input_settings(self, device: object, channels: int, samplerate: int) -> None:
        if samplerate != self.rate:
            raise PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def Stream(self, **options: Any) -> "Fake":
        self.options = options
        return self

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.thread.join()

    def run(self) -> None:
        for start in range(0, self.mix.shape[1] - self.block + 1, self.block):
            played = np.full((self.block, self.options["channels"][1]), np.nan, np.float32)
            self.options["callback"](self.mix[:, start : start + self.block].T, played, self.block, None, 0)
            self.played.append(played)
        self.ending(self)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake(tune(20))
    monkeypatch.setitem(sys.modules, "sounddevice", made)
    yield made


def performed(
    player: Player = BASS, devices: Any = (None, None), level: Level | None = None, budget_s: float = LEAD
) -> str:
    said: list[str] = []
    play(player, devices, level or Level(), budget_s, 3, said.append)
    return "\n".join(said)


def test_a_performance_says_how_late_it_is_and_ends_with_a_report(fake: Fake) -> None:
    told = performed(level=Level(lufs=-30.0)).splitlines()
    assert told[0].startswith("the mix was taken to be at -30.0 LUFS and heard +12.0 dB louder")
    assert told[1] == (
        "an answer sounds 123 ms after the moment it is meant for: 93 ms to find it and 30 ms of the device, less "
        "0 ms, the anticipation beyond one frame"
    )
    assert told[2] == "playing; Ctrl-C ends" and told[-1].startswith("underruns: ")
    assert fake.options["samplerate"] == RATE and fake.options["channels"] == (2, 2)
    assert np.isfinite(np.concatenate(fake.played)).all() and len(fake.played) == 20 * HOP // 512


def test_anticipation_makes_up_for_budget_and_device(fake: Fake) -> None:
    told = performed(replace(BASS, anticipation_frames=3), budget_s=0.02)
    assert "an answer sounds 0 ms after the moment it is meant for: 156 ms to find it and 30 ms of the device" in told


def test_ctrl_c_ends_with_the_report(fake: Fake) -> None:
    fake.ending = lambda fake: signal.raise_signal(signal.SIGINT)
    assert "underruns: " in performed().splitlines()[-1]


def test_a_device_that_knows_another_rate_only_is_resampled(fake: Fake) -> None:
    fake.rate, fake.inputs = 48000, 1
    fake.mix = fake.mix[:1]
    told = performed()
    assert fake.options["samplerate"] == 48000 and fake.options["channels"] == (1, 2)
    assert "the mix was resampled from 48000 Hz to the codec's 44100 Hz" in told


def test_what_stops_the_worker_ends_the_performance_and_is_told(fake: Fake) -> None:
    fake.mix = np.zeros((2, 4 * HOP), np.float32)  # no more than waits for a worker that is late
    fake.ending = lambda fake: None  # the device would go on for ever
    with pytest.raises(AudioError, match="the input was silent while it was measured"):
        performed(level=Level(calibrate_s=0.05))


def test_devices_that_cannot_be_had_are_told(fake: Fake) -> None:
    message = r"the audio device cannot be had \(No input device matching 'none'\); `python -m sounddevice` lists"
    with pytest.raises(RunError, match=message):
        performed(devices=("none", None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no"), r"--live needs the package sounddevice: pip install 'greenroom\[live\]'"),
        (
            OSError("PortAudio library not found"),
            "sounddevice finds no PortAudio library; Debian has it in libportaudio2",
        ),
    ],
)
def test_without_sounddevice_the_mend_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    class Missing:
        def find_spec(self, name: str, *rest: object) -> types.ModuleType | None:
            if name == "sounddevice":
                raise error
            return None

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(RunError, match=message):
        performed()
