from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile

import shards
from tests.train.made import HOP, RATE, LinearCodec, example, small, write
from tests.train.test_live import CODEC, trained
from train.batches import Pairs
from train.curves import Curves
from train.errors import RunError
from train.listening import MELS, Listening, draw, mel_db

MEMBERS = ((0, 1), (1, 2), (0, 2))


def listening(tmp: Path, split: str = "validation", **options: Any) -> Listening:
    songs = [
        example("t0", members=MEMBERS),
        example("t1", members=MEMBERS),
        example("v0", members=MEMBERS, split=split),
    ]
    dataset = shards.open(write(tmp / "out", songs))
    return Listening.of(dataset, Pairs.of(dataset, small()), CODEC, seconds=1.0, **options)


def written(tmp: Path, listens: Listening, step: int) -> dict[str, np.ndarray]:
    with Curves.open(tmp, 0, False) as curves:
        folder = listens.write(trained().player(), tmp, step, curves)
    assert folder == tmp / "listen" / f"{step:08d}"
    paths = [*folder.glob("*.wav"), *folder.parent.glob("*.wav")]
    return {path.name: soundfile.read(path)[0].T for path in paths}


def test_mix_target_and_what_is_played_are_written_for_each_pair(tmp_path: Path) -> None:
    listens = listening(tmp_path, most=2)
    found = written(tmp_path, listens, 500)
    names = [f"{n}-v0-{pair.instrument.lower()}" for n, pair in enumerate(listens.pairs)]
    assert sorted(found) == sorted(f"{name}-{part}.wav" for name in names for part in ("mix", "target", "played"))
    assert {path.name for path in (tmp_path / "listen" / "00000500").glob("*.png")} == {f"{name}.png" for name in names}
    assert all(sound.shape == (2, 11 * HOP) for sound in found.values())
    target = CODEC.decode(shards_tensor(listens.pairs[0].target))[0].numpy()
    scaled = target / max(1.0, np.abs(target).max())
    np.testing.assert_allclose(found[f"{names[0]}-target.wav"], scaled, atol=2 / 32768)


def shards_tensor(latents: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(latents).float()[None]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    listens = listening(tmp_path, most=1)
    written(tmp_path, listens, 1)
    [mix] = (tmp_path / "listen").glob("*-mix.wav")
    mix.unlink()
    mix.mkdir()
    with pytest.raises(RunError, match=r"-mix\.wav cannot be written \(.*\): is the disk full\?"):
        written(tmp_path, listens, 2)


def test_the_same_pairs_are_heard_at_each_step_and_noise_is_the_same(tmp_path: Path) -> None:
    listens = listening(tmp_path)
    first, again = written(tmp_path, listens, 1), written(tmp_path, listens, 2)
    assert len(first) == 12 and all(np.array_equal(first[name], again[name]) for name in first)


def test_without_a_validation_split_it_is_the_training_split(tmp_path: Path) -> None:
    assert {pair.song for pair in listening(tmp_path, split="test").pairs} <= {"t0", "t1"}


def test_tensorboard_has_them_where_it_is_on(tmp_path: Path) -> None:
    shown: list[tuple[Any, ...]] = []
    board = SimpleNamespace(add_audio=lambda *a: shown.append(a), add_image=lambda *a, dataformats: shown.append(a))
    with (tmp_path / "lines").open("w") as lines:
        listening(tmp_path, most=1).write(trained().player(), tmp_path, 7, Curves(lines, cast(Any, board)))
    (mix, target, played, image) = shown
    assert [part[0].split("/")[1] for part in (mix, target, played)] == ["mix", "target", "played"]
    assert all(part[2:] == (7, RATE) and part[1].shape == (11 * HOP,) for part in (mix, target, played))
    assert image[1].ndim == 3 and image[1].shape[2] == 3 and image[1].std() > 10


def test_spectrograms_show_a_tone_where_it_is(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)[None].repeat(2, axis=0).astype(np.float32)
    loudest = mel_db(tone, RATE)[:, 10:-10].argmax(axis=0)
    assert len(mel_db(tone, RATE)) == MELS and len(set(loudest.tolist())) == 1 and 5 < loudest[0] < 30
    pixels = draw({"one": tone, "two": 0.1 * tone}, RATE, tmp_path / "a.png")
    assert pixels.shape == (440, 1000, 3) and pixels.dtype == np.uint8 and (tmp_path / "a.png").stat().st_size > 1000


def test_another_codec_is_told(tmp_path: Path) -> None:
    dataset = shards.open(write(tmp_path / "out", [example("t0", members=MEMBERS), example("t1", members=MEMBERS)]))
    other = LinearCodec(identity=type(CODEC.identity)("other", "a", "w", "float32", RATE, 2, HOP, 4, True, 0))
    with pytest.raises(RunError, match=r"is not the one to listen with; set loop.listen_every to 0"):
        Listening.of(dataset, Pairs.of(dataset, small()), other)
