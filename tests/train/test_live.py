from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.train.made import CLASSES, DIM, HOP, RATE, LinearCodec, identity_json, small
from train.batches import Scale
from train.checkpoint import Checkpoint
from train.errors import AudioError, RunError
from train.game import Game
from train.live import ATTACK, Latency, limit, play, read_mix, write_wav

CODEC = LinearCodec()


def trained(ahead: int = 1) -> Checkpoint:
    """A checkpoint none of whose generator's weights is zero."""
    config = small(batches={"anticipation_frames": ahead})
    generator = Game.new(config, DIM, len(CLASSES)).generator
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    weights = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    mix, target = Scale(torch.tensor(0.1), torch.tensor(0.5)), Scale(torch.tensor(-0.2), torch.tensor(0.3))
    codec, targets = identity_json(), {"Piano": 4, "Bass": 4}
    return Checkpoint(0, config, codec, "p0-c0", tuple(CLASSES), targets, mix, target, 1.0, {}, {}, weights, {}, {}, {})


def tune(hops: float = 15.4, channels: int = 2, rate: int = RATE) -> np.ndarray:
    samples = np.arange(int(hops * HOP * rate / RATE)) / rate
    tones = [np.sin(2 * np.pi * (110 + 60 * channel) * samples) * (samples % 0.5) for channel in range(channels)]
    return np.stack(tones).astype(np.float32)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_what_is_played_is_the_parallel_pass_anticipation_later(ahead: int) -> None:
    checkpoint, mix = trained(ahead), tune()
    performance = play(CODEC, checkpoint, mix, RATE, "Bass", seed=3)

    latents = checkpoint.mix_scale.normalise(CODEC.encode(torch.from_numpy(mix)[None]))
    noise = torch.randn(16, 1, 1, 3, generator=torch.Generator().manual_seed(3))[:, 0, 0][None]
    whole = checkpoint.player()(latents, noise, torch.tensor([1]))
    audio = CODEC.decode(checkpoint.target_scale.restore(whole))[0].numpy()
    wanted = np.concatenate([np.zeros((2, ahead * HOP)), audio], axis=1)[:, : mix.shape[1]]

    assert performance.audio.shape == mix.shape and performance.rate == RATE and performance.notes == ()
    assert performance.audio.dtype == np.float32
    np.testing.assert_allclose(performance.audio, wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-3


@pytest.mark.parametrize("ahead", [0, 2])
def test_another_ending_of_the_mix_leaves_what_was_played_before(ahead: int) -> None:
    mix, other = tune(), tune()
    other[:, 6 * HOP :] *= -0.3
    one, two = (play(CODEC, trained(ahead), x, RATE, "Bass").audio for x in (mix, other))
    assert np.array_equal(one[:, : (6 + ahead) * HOP], two[:, : (6 + ahead) * HOP])
    assert not np.allclose(one[:, (6 + ahead) * HOP :], two[:, (6 + ahead) * HOP :])


def test_seed_and_instrument_decide_the_take() -> None:
    takes = [play(CODEC, trained(), tune(), RATE, name, seed).audio for name, seed in (("Bass", 1), ("bass", 1))]
    assert np.array_equal(*takes)
    for name, seed in (("Bass", 2), ("Piano", 1)):
        assert not np.allclose(takes[0], play(CODEC, trained(), tune(), RATE, name, seed).audio)


def test_mixes_of_another_rate_or_width_are_fitted_and_that_is_said() -> None:
    mono = play(CODEC, trained(), tune(channels=1), RATE, "Bass")
    assert mono.audio.shape == (2, tune().shape[1])
    assert mono.notes == ("the mix's 1 channels were averaged to one, on all 2 of the codec's",)
    doubled = np.repeat(tune(channels=1), 2, axis=0)
    np.testing.assert_allclose(mono.audio, play(CODEC, trained(), doubled, RATE, "Bass").audio, atol=1e-6)
    wide = play(CODEC, trained(), tune(channels=6, rate=22050), 22050, "Bass")
    assert wide.audio.shape[1] == pytest.approx(tune().shape[1], abs=2)
    assert wide.notes[0] == "the mix was resampled from 22050 Hz to the codec's 44100 Hz"
    assert wide.notes[1].startswith("the mix's 6 channels were averaged")


@pytest.mark.parametrize("gain", [0.0, 1e-6, 100.0])
def test_any_level_can_be_played_along_with(gain: float) -> None:
    assert np.isfinite(play(CODEC, trained(), gain * tune(), RATE, "Bass").audio).all()


def test_a_mix_shorter_than_a_hop_is_one() -> None:
    assert play(CODEC, trained(0), tune(0.3), RATE, "Bass").latency.seconds.shape == (1, 3)


def test_an_instrument_that_was_never_a_target_is_noted() -> None:
    (note,) = play(CODEC, trained(), tune(3), RATE, "Percussive").notes
    assert note == "no Percussive was among the targets in training; those were: Piano, Bass"


def test_latency_is_reported_a_part_and_in_all() -> None:
    latency = play(CODEC, trained(), tune(), RATE, "Bass").latency
    assert latency.seconds.shape == (16, 3) and (latency.seconds > 0).all()
    seconds = np.full((200, 3), 0.010)
    seconds[7] = 0.050
    table = Latency(seconds, 0.1).table().splitlines()
    assert table[0].split() == ["ms", "a", "frame", "mean", "median", "p99", "worst"]
    assert table[1].split() == ["encode", "10.2", "10.0", "10.0", "50.0"]
    assert table[4].split() == ["all", "30.6", "30.0", "30.0", "150.0"]
    assert table[5] == "real-time factor 3.3 (100.0 ms a frame); 1 of 200 frames were late"


def test_the_limiter_leaves_quiet_hops_alone_and_holds_loud_ones_to_full_scale() -> None:
    quiet, loud = 0.9 * torch.ones(1, 2, HOP), torch.full((1, 2, HOP), -4.0)
    same, gain = limit(quiet, 1.0, RATE)
    assert torch.equal(same, quiet) and gain == 1
    held, gain = limit(loud, 1.0, RATE)
    assert gain == 0.25 and held.abs().max() <= 1
    torch.testing.assert_close(held[..., ATTACK:], 0.25 * loud[..., ATTACK:])
    after, gain = limit(quiet, gain, RATE)
    assert gain == pytest.approx(0.25 * 10 ** (6 * HOP / RATE / 20))
    assert after[0, 0, 0] == pytest.approx(0.25 * 0.9) and after[0, 0, -1] == pytest.approx(gain * 0.9)


def test_a_loud_performance_is_held_back_and_that_is_said() -> None:
    checkpoint = replace(trained(), target_scale=Scale(torch.tensor(0.0), torch.tensor(300.0)))
    performance = play(CODEC, checkpoint, tune(), RATE, "Bass")
    assert np.abs(performance.audio).max() == pytest.approx(1.0, abs=1e-6)
    assert (
        performance.notes[0].startswith("the limiter held back") and "of 16 frames, by at most" in performance.notes[0]
    )


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (np.zeros((2, 0), np.float32), "the mix is empty"),
        (np.array([[0.0, np.nan, np.inf]], np.float32), "the mix holds 2 samples of NaN or infinity"),
    ],
)
def test_a_mix_that_is_none_is_told(mix: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        play(CODEC, trained(), mix, RATE, "Bass")


def test_an_unknown_instrument_is_told_the_nearest_and_all() -> None:
    message = r"no instrument 'Bas'; did you mean Bass\? The classes are: Piano, Bass, Percussive"
    with pytest.raises(RunError, match=message):
        play(CODEC, trained(), tune(), RATE, "Bas")


def test_another_codec_is_told() -> None:
    other = replace(trained(), codec=identity_json(weights="v", dim=8))
    with pytest.raises(RunError, match=r"the player's codec is not the one .*: weights w here, v there; dim 4 here, 8"):
        play(CODEC, other, tune(), RATE, "Bass")


@pytest.mark.parametrize(("peak", "told"), [(0.5, None), (4.0, "out.wav was attenuated by 12.0 dB, to full scale")])
def test_over_full_scale_is_attenuated_not_clipped(tmp_path: Path, peak: float, told: str | None) -> None:
    wave = tune() / np.abs(tune()).max() * peak
    path = tmp_path / "new" / "out.wav"
    assert write_wav(path, wave, RATE) == told
    read, rate = read_mix(path)
    assert rate == RATE and soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(read, wave / max(1.0, peak), atol=2 / 32768)


def test_silence_is_written(tmp_path: Path) -> None:
    assert write_wav(tmp_path / "out.wav", np.zeros((2, 9), np.float32), RATE) is None


def broken(kind: str, tmp: Path) -> Path:
    path = tmp / "mix.wav"
    contents: dict[str, Any] = {"missing": None, "text": b"not a sound", "cut": b"RIFF\x00"}
    if contents[kind] is not None:
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"mix\.wav is not a file; give --mix a WAV or FLAC file"),
        ("text", r"mix\.wav cannot be read as audio \(.*\); give"),
        ("cut", r"mix\.wav cannot be read as audio \(.*\); give"),
    ],
)
def test_files_that_are_no_sound_are_told(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        read_mix(broken(kind, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match=r"cannot be written \(.*\); choose another --out"):
        write_wav(tmp_path / "file" / "out.wav", np.zeros((2, 9), np.float32), RATE)
