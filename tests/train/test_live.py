from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train.made import CLASSES, DIM, HOP, RATE, LinearCodec, identity_json, small
from train.batches import Scale
from train.checkpoint import Checkpoint
from train.errors import RunError
from train.game import Game
from train.live import ATTACK, Latency, Performance, Player, limit, settle, untaught

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


def perform(
    checkpoint: Checkpoint, mix: np.ndarray, name: str = "Bass", seed: int = 0, gain_db: float = 0.0, block: int = RATE
) -> tuple[np.ndarray, Performance]:
    performance = Performance(Player.of(CODEC, checkpoint, name), seed, gain_db)
    blocks = [mix[:, start : start + block] for start in range(0, mix.shape[1], block)]
    return np.concatenate(list(performance.accompany(blocks)), axis=1), performance


def parallel(checkpoint: Checkpoint, mix: np.ndarray, seed: int, ahead: int) -> np.ndarray:
    """The same in one pass, for Bass."""
    latents = checkpoint.mix_scale.normalise(CODEC.encode(torch.from_numpy(mix)[None]))
    drawn = torch.Generator().manual_seed(seed)
    noise = torch.cat([torch.randn(1, 1, 3, generator=drawn) for _ in range(latents.shape[1])], dim=1)
    whole = checkpoint.player()(latents, noise, torch.tensor([1]))
    audio = CODEC.decode(checkpoint.target_scale.restore(whole))[0].numpy()
    return np.concatenate([np.zeros((2, ahead * HOP)), audio], axis=1)[:, : mix.shape[1]]


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("block", [100, HOP, 3 * HOP + 1])
def test_what_is_played_is_the_parallel_pass_anticipation_later(ahead: int, block: int) -> None:
    checkpoint, mix = trained(ahead), tune()
    played, performance = perform(checkpoint, mix, seed=3, block=block)
    wanted = parallel(checkpoint, mix, 3, ahead)
    assert played.shape == mix.shape and played.dtype == np.float32 and performance.notes == []
    np.testing.assert_allclose(played, wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-3


def test_nothing_is_played_before_it_can_have_been_heard() -> None:
    """Of blocks shorter than a hop, none is answered until the hop is whole."""
    performance, heard, played = Performance(Player.of(CODEC, trained(0), "Bass")), 0, 0
    blocks = iter(np.array_split(tune(4), 31, axis=1))

    def until_now() -> Iterator[np.ndarray]:
        nonlocal heard
        for block in blocks:
            heard += block.shape[1]
            yield block

    for audio in performance.accompany(until_now()):
        played += audio.shape[1]
        assert played in (heard // HOP * HOP, heard)
    assert played == heard == 4 * HOP


@pytest.mark.parametrize("ahead", [0, 2])
def test_another_ending_of_the_mix_leaves_what_was_played_before(ahead: int) -> None:
    mix, other = tune(), tune()
    other[:, 6 * HOP :] *= -0.3
    one, two = (perform(trained(ahead), x)[0] for x in (mix, other))
    assert np.array_equal(one[:, : (6 + ahead) * HOP], two[:, : (6 + ahead) * HOP])
    assert not np.allclose(one[:, (6 + ahead) * HOP :], two[:, (6 + ahead) * HOP :])


def test_seed_and_instrument_decide_the_take() -> None:
    takes = [perform(trained(), tune(), name, seed)[0] for name, seed in (("Bass", 1), ("bass", 1))]
    assert np.array_equal(*takes)
    for name, seed in (("Bass", 2), ("Piano", 1)):
        assert not np.allclose(takes[0], perform(trained(), tune(), name, seed)[0])


def test_a_gain_is_the_mix_played_louder() -> None:
    raised, _ = perform(trained(), 0.25 * tune(), gain_db=20 * np.log10(4))
    np.testing.assert_allclose(raised, perform(trained(), tune())[0], atol=1e-5)


@pytest.mark.parametrize("gain", [0.0, 1e-6, 100.0])
def test_any_level_can_be_played_along_with(gain: float) -> None:
    assert np.isfinite(perform(trained(), gain * tune())[0]).all()


def test_a_settled_generator_gives_the_same_numbers_for_every_instrument_in_turn() -> None:
    plain, settled = trained().player(), settle(trained().player())
    rng = torch.Generator().manual_seed(0)
    mix, noise = torch.randn(1, 5, DIM, generator=rng), torch.randn(1, 5, 3, generator=rng)
    played = []
    for instrument in (0, 0, 1, 0):
        played.append(settled(mix, noise, torch.tensor([instrument])))
        assert torch.equal(played[-1], plain(mix, noise, torch.tensor([instrument])))
    assert not torch.equal(played[1], played[2])


def test_a_mix_shorter_than_a_hop_is_one() -> None:
    played, performance = perform(trained(0), tune(0.3))
    assert performance.latency.seconds.shape == (1, 3) and played.shape == tune(0.3).shape


def test_an_instrument_that_was_never_a_target_is_noted() -> None:
    checkpoint = trained()
    (note,) = untaught(Player.of(CODEC, checkpoint, "Percussive"), checkpoint)
    assert note == "no Percussive was among the targets in training; those were: Piano, Bass"
    assert untaught(Player.of(CODEC, checkpoint, "Piano"), checkpoint) == []


def test_latency_is_reported_a_part_and_in_all() -> None:
    latency = perform(trained(), tune())[1].latency
    assert latency.seconds.shape == (16, 3) and (latency.seconds > 0).all()
    seconds = np.full((200, 3), 0.010)
    seconds[7] = 0.050
    table = Latency(seconds, 0.1).table().splitlines()
    assert table[0].split() == ["ms", "a", "frame", "mean", "median", "p99", "worst"]
    assert table[1].split() == ["encode", "10.2", "10.0", "10.0", "50.0"]
    assert table[4].split() == ["all", "30.6", "30.0", "30.0", "150.0"]
    assert table[5] == "real-time factor 3.3 (100.0 ms a frame); 1 of 200 frames took longer than they sound"


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
    played, performance = perform(checkpoint, tune())
    assert np.abs(played).max() == pytest.approx(1.0, abs=1e-6)
    (note,) = performance.notes
    assert note.startswith("the limiter held back") and "of 16 frames, by at most" in note


def test_an_unknown_instrument_is_told_the_nearest_and_all() -> None:
    message = r"no instrument 'Bas'; did you mean Bass\? The classes are: Piano, Bass, Percussive"
    with pytest.raises(RunError, match=message):
        Player.of(CODEC, trained(), "Bas")


def test_a_codec_that_hears_the_future_is_refused() -> None:
    codec = LinearCodec(replace(CODEC.identity, causal=False))
    with pytest.raises(RunError, match=r"codec made is not causal: .* such a run can be scored, not played"):
        Player.of(codec, trained(), "Bass")


def test_another_codec_is_told() -> None:
    other = replace(trained(), codec=identity_json(weights="v", dim=8))
    with pytest.raises(RunError, match=r"the player's codec is not the one .*: weights w here, v there; dim 4 here, 8"):
        Player.of(CODEC, other, "Bass")
