"""The codec's training on small made songs: where it starts, that it goes down, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from prep.codecs import CausalCodec, load_codec
from tests.prep.made import SMALL, tones
from train.codec.components import components, start_from_components
from train.codec.crops import batches, draw_crop
from train.codec.fit import codec_loss, fit_codec
from train.codec.measures import si_sdr_db
from train.codec.recipe import CodecRecipe, read_recipe
from train.codec.songs import find_songs
from train.errors import ConfigError, TrainError

RATE = 44100
WIDER = dataclasses.replace(SMALL, wave_dim=24, envelope_dim=12)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of decaying low tones with a little noise."""
    root = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for number in range(3):
        folder = root / "train" / f"Track{number:05d}"
        (folder / "stems").mkdir(parents=True)
        stems = {k: v + 1e-3 * rng.standard_normal(v.shape) for k, v in tones(number, 3, 4.0).items()}
        for name, audio in stems.items():
            sf.write(folder / "stems" / f"{name}.flac", audio, RATE)
        sf.write(folder / "mix.flac", sum(stems.values()) / 3, RATE)
    return root


def recipe(**changes: Any) -> CodecRecipe:
    return CodecRecipe(**{"steps": 4, "batch": 2, "crop_frames": 6, "components_frames": 120, **changes})  # type: ignore[arg-type]


def test_components_are_orthonormal_and_ordered() -> None:
    rows = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)) * torch.linspace(5, 0.1, 30)
    basis, scale = components(rows, 4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4), atol=1e-4, rtol=0)
    exact = torch.linalg.svdvals(rows)[:4] / 200**0.5
    torch.testing.assert_close(scale, exact, rtol=1e-3, atol=0)


def test_it_starts_as_a_good_linear_codec(corpus: Path) -> None:
    songs = find_songs(corpus, RATE)
    audio = torch.cat(list(batches(songs, recipe(batch=4), 6 * 4096, range(20))))
    codec = CausalCodec(WIDER)
    before = float(si_sdr_db(audio, codec.decode(codec.encode(audio)).detach()))
    start_from_components(codec, audio)
    latents = codec.encode(audio).detach()
    assert before < -10 and float(si_sdr_db(audio, codec.decode(latents).detach())) > 3
    assert 0.5 < float(latents.std()) < 1.5


def test_training_lowers_the_loss_and_leaves_loadable_weights(corpus: Path, tmp_path: Path) -> None:
    """On the same crops, others than those of training."""
    audio = torch.cat(list(batches(find_songs(corpus, RATE), recipe(seed=5), 6 * 4096, range(12))))
    losses = []
    for name, steps, rate in (("start", 1, 1e-9), ("end", 100, 2e-3)):
        changes: dict[str, Any] = {
            "architecture": dataclasses.asdict(WIDER),
            "steps": steps,
            "learning_rate": rate,
            "warmup_steps": 1,
            "ema": 0.5,
        }
        assert fit_codec(recipe(**changes), corpus, tmp_path / name) == steps
        codec = load_codec(f"causal={tmp_path / name}/causal.safetensors")
        torch.manual_seed(0)
        losses.append(float(codec_loss(codec, audio, recipe())[0]))
    assert losses[1] < 0.95 * losses[0]
    rows = [json.loads(line) for line in (tmp_path / "end" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 100 and set(rows[0]) == {"step", "s", "loss", "mel", "fine_mel", "waveform"}
    assert codec.identity.dim == 36


def test_it_starts_from_weights_that_are_there(corpus: Path, tmp_path: Path) -> None:
    fit_codec(recipe(steps=3, architecture=dataclasses.asdict(SMALL)), corpus, tmp_path / "first")
    spec = f"causal={tmp_path / 'first' / 'causal.safetensors'}"
    again = recipe(start=spec, steps=1, learning_rate=1e-12, architecture=dataclasses.asdict(SMALL))
    fit_codec(again, corpus, tmp_path / "second")
    first, second = load_codec(spec), load_codec(f"causal={tmp_path / 'second' / 'causal.safetensors'}")
    torch.testing.assert_close(second.state_dict(), first.state_dict(), atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match=r"start: causal=.* is of another architecture .* Leave start out"):
        fit_codec(recipe(start=spec, architecture=dataclasses.asdict(WIDER)), corpus, tmp_path / "third")


def test_crops_are_a_function_of_seed_and_number(corpus: Path) -> None:
    songs = find_songs(corpus, RATE)
    first = [draw_crop(songs, 4096, 0, i) for i in range(8)]
    assert all(np.array_equal(draw_crop(songs, 4096, 0, i), crop) for i, crop in enumerate(first))
    assert not np.array_equal(first[0], draw_crop(songs, 4096, 1, 0))
    assert all(crop.shape == (2, 4096) and np.isfinite(crop).all() for crop in first)
    longer = draw_crop(songs, 10 * RATE, 0, 0)
    assert longer.shape == (2, 10 * RATE)


def test_an_error_while_drawing_reaches_the_trainer(corpus: Path) -> None:
    songs = [dataclasses.replace(song, mix=Path("gone.flac"), stems=()) for song in find_songs(corpus, RATE)]
    with pytest.raises(TrainError, match=r"gone.flac cannot be read"):
        list(batches(songs, recipe(), 4096, range(2)))


def test_the_recipe_for_a_gpu_has_ten_times_the_parameters() -> None:
    large = read_recipe(Path(__file__).parents[3] / "configs" / "codec-73m.yaml").config
    small, ten = (sum(p.numel() for p in CausalCodec(c).parameters()) for c in (CodecRecipe().config, large))
    assert 9.5 < ten / small < 10.5


def test_what_is_wrong_is_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"no mix.flac below .*prep compose"):
        find_songs(tmp_path, RATE)
    with pytest.raises(TrainError, match=r"at 44100 Hz, the codec at 48000"):
        find_songs(corpus, 48000)
    with pytest.raises(TrainError, match=r"none.yaml does not exist"):
        read_recipe(tmp_path / "none.yaml")
    for text, message in (
        ("step: 3", "step: .*Settings: architecture, start, steps"),
        ("batch: 0", "batch: "),
        ("architecture: {width: 3}", "architecture: .*width is not one of"),
        ("[", "bad.yaml"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(TrainError, match=message):
            read_recipe(tmp_path / "bad.yaml")
    if not torch.cuda.is_available():
        with pytest.raises(TrainError, match="finds no CUDA GPU here"):
            fit_codec(recipe(), corpus, tmp_path / "run", "cuda")
    assert read_recipe(Path(__file__).parents[3] / "configs" / "codec.yaml") == CodecRecipe()
