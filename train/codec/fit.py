"""Training the causal codec: principal components first, then everything together, on two distances at once."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from tqdm import tqdm

from prep.codecs import CausalCodec, CausalConfig, save_codec
from train.codec.components import start_from_components
from train.codec.measures import log_mel_distance, low_band_error
from train.codec.songs import Song, draw_crop, find_songs
from train.errors import TrainError

# Of the distances while training: single stems fall silent, and what is below this there cannot be heard
MEL_FLOOR = 1e-3


class CodecRecipe(BaseModel):
    """What configs/codec.yaml may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    steps: int = Field(3000, gt=0)
    batch: int = Field(8, gt=0)
    crop_frames: int = Field(24, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    waveform_weight: float = Field(0.3, ge=0)
    waveform_below_hz: float = Field(1000.0, gt=0)
    fine_mel_weight: float = Field(0.5, ge=0)
    latent_noise: float = Field(0.05, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    components_frames: int = Field(6000, gt=0)
    save_every: int = Field(250, gt=0)
    seed: int = 0


def read_recipe(path: Path) -> CodecRecipe:
    """Raises TrainError naming the setting that is wrong."""
    if not path.is_file():
        raise TrainError(f"config {path} does not exist. The one that ships is configs/codec.yaml.")
    try:
        return CodecRecipe(**(yaml.safe_load(path.read_text()) or {}))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(CodecRecipe.model_fields)
        where = ".".join(map(str, first["loc"]))
        raise TrainError(f"{path}: {where}: {first['msg']}. Settings: {known}.") from error
    except (TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainError(f"{path} is not a mapping of settings in YAML: {' '.join(str(error).split())}.") from error


def batches(songs: list[Song], recipe: CodecRecipe, samples: int, steps: range, ahead: int = 8) -> Iterator[Tensor]:
    """(B, 2, samples) for each step, drawn one thread ahead."""
    ready: queue.Queue[Tensor | BaseException] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: Tensor | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def draw() -> None:
        try:
            for step in steps:
                first = step * recipe.batch
                crops = [draw_crop(songs, samples, recipe.seed, first + i) for i in range(recipe.batch)]
                put(torch.stack([torch.from_numpy(crop) for crop in crops]))
                if stop.is_set():
                    return
        except BaseException as error:
            put(error)

    threading.Thread(target=draw, daemon=True).start()
    try:
        for _ in steps:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def codec_loss(codec: CausalCodec, audio: Tensor, recipe: CodecRecipe) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts for (B, 2, samples). Latents are blurred so that near ones decode alike."""
    latents = codec.encode(audio)
    latents = latents + recipe.latent_noise * torch.randn_like(latents)
    frame, *state = codec.decode_state(len(audio))
    frame = torch.randint(codec.config.noise_frames, ())  # or the network would learn where a crop starts
    decoded, _ = codec.decode_step(latents, (frame, *state))
    rate = codec.config.sample_rate
    parts = {
        "mel": log_mel_distance(audio, decoded, rate, floor=MEL_FLOOR),
        "fine_mel": log_mel_distance(audio, decoded, rate, 512, 128, 40, MEL_FLOOR),
        # clipped: a crop of near silence must not outweigh all others
        "waveform": low_band_error(audio, decoded, rate, recipe.waveform_below_hz).clamp(max=2).mean(),
    }
    loss = parts["mel"] + recipe.fine_mel_weight * parts["fine_mel"] + recipe.waveform_weight * parts["waveform"]
    return loss, parts


def fit_codec(recipe: CodecRecipe, data: Path, run: Path, config: CausalConfig | None = None) -> Path:
    """Train on the songs below `data`; returns RUN/causal.safetensors (the running average of the weights)."""
    torch.manual_seed(recipe.seed)
    codec = CausalCodec(config)
    c = codec.config
    songs = find_songs(data, c.sample_rate)
    samples = recipe.crop_frames * c.hop
    if (run / "metrics.jsonl").exists():
        raise TrainError(f"{run} holds a codec's training already, and cannot resume it. Choose another --run.")
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump()))
    count = -(-recipe.components_frames // (recipe.batch * recipe.crop_frames))
    # under another seed: crops that training does not see again
    first = torch.cat(list(batches(songs, recipe.model_copy(update={"seed": recipe.seed + 1}), samples, range(count))))
    start_from_components(codec, first)
    average = torch.optim.swa_utils.AveragedModel(
        codec, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema), use_buffers=False
    )
    optimizer = torch.optim.AdamW(_groups(codec), lr=0, betas=(0.9, 0.99))
    out, started = run / "causal.safetensors", time.monotonic()
    with (run / "metrics.jsonl").open("w") as log, tqdm(total=recipe.steps, unit="step") as bar:
        for step, audio in enumerate(batches(songs, recipe, samples, range(recipe.steps))):
            rate = _learning_rate(recipe, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            loss, parts = codec_loss(codec, audio, recipe)
            if not torch.isfinite(loss):
                raise TrainError(
                    f"the codec's loss is {float(loss)} at step {step}; lower learning_rate ({recipe.learning_rate})."
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(codec)
            row = {"loss": float(loss.detach()), **{name: float(part.detach()) for name, part in parts.items()}}
            log.write(json.dumps({"step": step, "s": time.monotonic() - started, **row}) + "\n")
            bar.update()
            bar.set_postfix(mel=f"{row['mel']:.3f}", waveform=f"{row['waveform']:.3f}", refresh=False)
            if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                log.flush()
                save_codec(cast(CausalCodec, average.module), out)
    return out


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
