"""Training the causal codec: principal components first, then everything together, on two distances at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from prep.codecs import CausalCodec, CausalConfig, load_codec, save_codec
from train.codec import checkpoint
from train.codec.components import start_from_components
from train.codec.crops import batches
from train.codec.measures import log_mel_distance, low_band_error
from train.codec.recipe import CodecRecipe
from train.codec.songs import Song, digest_of, find_songs
from train.curves import Curves
from train.errors import ConfigError, DivergedError, RunError
from train.loop import stoppable

# Of the distances while training: single stems fall silent, and what is below this there cannot be heard
MEL_FLOOR = 1e-3


def codec_loss(codec: CausalCodec, audio: Tensor, recipe: CodecRecipe) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts for (B, 2, samples). Latents are blurred so that near ones decode alike."""
    latents = codec.encode(audio)
    latents = latents + recipe.latent_noise * torch.randn_like(latents)
    frame, *state = codec.decode_state(len(audio))
    frame = torch.randint(codec.config.noise_frames, ())  # or the network would learn where a crop starts
    decoded, _ = codec.decode_step(latents, (frame, *state))
    rate = codec.config.sample_rate
    both = _with_mid_side(audio), _with_mid_side(decoded)
    parts = {
        "mel": log_mel_distance(*both, rate, floor=MEL_FLOOR),
        "fine_mel": log_mel_distance(*both, rate, 512, 128, 40, MEL_FLOOR),
        # clipped: a crop of near silence must not outweigh all others
        "waveform": low_band_error(audio, decoded, rate, recipe.waveform_below_hz).clamp(max=2).mean(),
    }
    loss = parts["mel"] + recipe.fine_mel_weight * parts["fine_mel"] + recipe.waveform_weight * parts["waveform"]
    return loss, parts


def _with_mid_side(audio: Tensor) -> Tensor:
    """Left, right, their mean and half their difference (B, 4, samples): left and right alone may both be right, and
    the width of what is between them wrong."""
    left, right = audio[:, 0], audio[:, 1]
    return torch.stack([left, right, (left + right) / 2, (left - right) / 2], dim=1)


class Trainer:
    """The codec, the running average of its weights, and what moves them. A step depends on these and its number."""

    def __init__(self, recipe: CodecRecipe, device: str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.codec = CausalCodec(recipe.config).to(device)
        self.average = AveragedModel(self.codec, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=False)
        self.optimizer = torch.optim.AdamW(_groups(self.codec), lr=0, betas=(0.9, 0.99))

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        self.codec.load_state_dict(saved.model)
        self.average.load_state_dict(saved.average)
        self.optimizer.load_state_dict(saved.optimizer)

    def step(self, audio: Tensor, step: int) -> dict[str, float]:
        """Step number `step` on (B, 2, samples); its loss, and the parts of it."""
        torch.manual_seed((self.recipe.seed << 32) + step)
        rate = _learning_rate(self.recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss, parts = codec_loss(self.codec, audio.to(self.device), self.recipe)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the codec's loss is {float(loss)} at step {step}. "
                f"Start another --run with a lower learning_rate than {self.recipe.learning_rate}."
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.codec.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.codec)
        return {name: float(part.detach()) for name, part in {"loss": loss, **parts}.items()}


def fit_codec(recipe: CodecRecipe, data: Path, run: Path, device: str = "cpu") -> int:
    """Train on the songs below `data` in the folder `run`, going on from its checkpoint; the steps finished.

    RUN/causal.safetensors is the running average of the weights. Ctrl-C finishes the step, saves and returns.
    Raises RunError for a run of another recipe: only `steps`, and so how slowly the learning rate falls, may change.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("--device is cuda, and torch finds no CUDA GPU here; use --device cpu")
    config = recipe.config
    songs = find_songs(data, config.sample_rate)
    digest = digest_of(songs, data)
    saved = checkpoint.resume(run, recipe, config, digest)
    trainer = Trainer(recipe, device)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump()))
    if saved:
        trainer.restore(saved)
    elif recipe.start:
        start_from_codec(trainer.codec, recipe.start)
    else:
        begun = deepcopy(trainer.codec).cpu()
        start_from_components(begun, _first_crops(songs, recipe, config))
        trainer.codec.load_state_dict(begun.state_dict())
    start, spent = (saved.step, saved.seconds) if saved else (0, 0.0)
    began, finished = time.monotonic() - spent, start
    with Curves.open(run, start, tensorboard=False) as curves:
        for finished, row in _train(trainer, songs, range(start, recipe.steps)):
            seconds = time.monotonic() - began
            curves.write(finished, {"s": seconds, **row})
            if finished % recipe.save_every == 0:
                _save(trainer, run, finished, seconds, digest)
    if finished % recipe.save_every or finished == start:
        _save(trainer, run, finished, time.monotonic() - began, digest)
    return finished


def _train(trainer: Trainer, songs: list[Song], steps: range) -> Iterator[tuple[int, dict[str, float]]]:
    """The number of finished steps and what the last one measured, until the steps are done or Ctrl-C is pressed."""
    recipe = trainer.recipe
    samples = recipe.crop_frames * trainer.codec.config.hop
    with stoppable() as stopped, tqdm(total=recipe.steps, initial=steps.start, unit="step") as bar:
        for step, audio in zip(steps, batches(songs, recipe, samples, steps), strict=True):
            row = trainer.step(audio, step)
            bar.update()
            bar.set_postfix(mel=f"{row['mel']:.3f}", waveform=f"{row['waveform']:.3f}", refresh=False)
            yield step + 1, row
            if stopped():
                return


def start_from_codec(codec: CausalCodec, spec: str) -> None:
    """Takes over the weights of another codec of the same architecture. Raises ConfigError where it is of another."""
    other = load_codec(spec)
    if not isinstance(other, CausalCodec) or other.config != codec.config:
        raise ConfigError(f"start: {spec} is of another architecture than the codec to train. Leave start out.")
    codec.load_state_dict(other.state_dict())


def _first_crops(songs: list[Song], recipe: CodecRecipe, config: CausalConfig) -> Tensor:
    """Of another seed than training's, which therefore does not see them again."""
    count = -(-recipe.components_frames // (recipe.batch * recipe.crop_frames))
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    return torch.cat(list(batches(songs, other, recipe.crop_frames * config.hop, range(count))))


def _save(trainer: Trainer, run: Path, step: int, seconds: float, songs: str) -> None:
    saved = checkpoint.Checkpoint(
        step=step,
        seconds=seconds,
        recipe=trainer.recipe.model_dump(),
        codec=asdict(trainer.codec.config),
        songs=songs,
        model=trainer.codec.state_dict(),
        average=trainer.average.state_dict(),
        optimizer=trainer.optimizer.state_dict(),
    )
    checkpoint.save(saved, run)
    save_codec(cast(CausalCodec, trainer.average.module), run / "causal.safetensors")


def _groups(codec: CausalCodec) -> list[dict[str, Any]]:
    """Parameters and the factors of their learning rate.

    Layers that start from components are good already, and those with a thousand inputs would leap at the full rate.
    """
    slow = [codec.wave_in, codec.wave_out, codec.envelope_in, codec.envelope_out]
    wide = [codec.feature_in, codec.magnitude, codec.phase]
    groups = [{"params": [p for layer in layers for p in layer.parameters()]} for layers in (slow, wide)]
    taken = {id(p) for group in groups for p in group["params"]}
    rest = [p for p in codec.parameters() if id(p) not in taken]
    factors = (0.02, 0.2, 1.0)
    return [
        {"params": params, "scale": f}
        for params, f in zip([*(g["params"] for g in groups), rest], factors, strict=True)
    ]


def _learning_rate(recipe: CodecRecipe, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
