"""The loop around the game: data in, curves and checkpoints out, and back from them.

Under torchrun each process takes its share of every batch, so that a run is the same on any number of them; the first
one alone writes and speaks.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from torch import OutOfMemoryError, cuda, nn
from tqdm import tqdm

import shards
from prep.codecs import CodecError, load_codec
from train import checkpoint
from train.batches import Batch, Pairs
from train.config import Config, Loop
from train.cost import flops_a_step
from train.curves import Curves
from train.errors import DataError, DivergedError, RunError, TrainError
from train.game import Game, train_step
from train.listening import Listening
from train.ranks import Ranks, joined


def fit(config: Config, data: Path | str, run: Path, device: str = "cpu", say: Callable[[str], None] = print) -> int:
    """Train in the folder `run` until `loop.steps`, going on from its checkpoint; the steps finished.

    Ctrl-C finishes the step, writes a checkpoint and returns. Raises TrainError, and shards' error for the dataset.
    """
    if device == "cuda" and not cuda.is_available():
        raise RunError("--device is cuda, and torch finds no CUDA GPU here; use --device cpu")
    with joined(device) as ranks:
        return _fit(config, data, run, ranks, say if ranks.rank == 0 else lambda _: None)


def _fit(config: Config, data: Path | str, run: Path, ranks: Ranks, say: Callable[[str], None]) -> int:
    dataset = shards.open(data, cache_gb=config.batches.cache_gb)
    if "://" in str(data):
        say(_fetching(dataset, config.batches.cache_gb))
    pairs = Pairs.of(dataset, config)
    share = _share(config.batches.batch_size, len(pairs), ranks.world)
    saved = checkpoint.resume(run, config, dataset.codec, dataset.index["generation"], ranks.rank == 0)
    start = saved.step if saved else 0
    if ranks.mean({"step": start})["step"] != start:
        raise RunError(f"{run} is at step {start} for process {ranks.rank}, at another for others; share its disk")
    if saved and start >= config.loop.steps:
        say(f"{run} is finished: {start} steps. To go on, raise loop.steps (--set loop.steps=N).")
        return start
    with _mended(run, start, config):
        game = Game.new(config, dataset.codec["dim"], len(dataset.classes), ranks)
    loader = shards.Loader(pairs.order(), share, pairs.draw, pairs.collate, config.seed, ahead=4)
    if saved:
        game.restore(saved)
        loader.load_state_dict(saved.loader)
        say(f"going on from step {start} of {run}")
    flops = flops_a_step(config, dataset.codec["dim"], len(dataset.classes))
    say(_opening(pairs, game, flops))

    def save(step: int) -> None:
        if ranks.rank == 0:
            frozen = _freeze(game, pairs, loader.state_dict(), step)
            checkpoint.save(frozen, run)

    listening = _listening(dataset, pairs, config.loop, say) if ranks.rank == 0 else None

    def listen(step: int, curves: Curves) -> None:
        if listening and step % config.loop.listen_every == 0:
            frozen = _freeze(game, pairs, loader.state_dict(), step)
            listening.write(frozen.player(), run, step, curves)

    duels = zip(*2 * [iter(loader)], strict=False)  # a step takes two batches
    return _train(game, duels, config, run, start, flops, save, listen)


def _listening(dataset: shards.Dataset, pairs: Pairs, c: Loop, say: Callable[[str], None]) -> Listening | None:
    """Of the codec that the dataset was built with. Without one to listen with, training goes on."""
    if not c.listen_every or c.steps < c.listen_every:
        return None
    try:
        return Listening.of(dataset, pairs, load_codec(dataset.index["config"].get("codec", "causal")))
    except (CodecError, TrainError) as error:
        say(f"nothing will be played to listen to: {error}")
        return None


def _share(batch_size: int, pairs: int, world: int) -> int:
    """How many pairs of a batch each rank takes."""
    if batch_size % world:
        raise DataError(
            f"batches.batch_size is {batch_size}, shared by {world} processes; make it a multiple of {world}, "
            "or start another number of them"
        )
    if pairs < 2 * batch_size:
        raise DataError(
            f"the train split holds {pairs} pairs, and a step takes 2 * batches.batch_size = {2 * batch_size}; "
            f"lower batches.batch_size to at most {pairs // 2}, or build from more songs"
        )
    return batch_size // world


def _train(
    game: Game,
    duels: Iterable[tuple[Batch, Batch]],
    config: Config,
    run: Path,
    start: int,
    flops: float,
    save: Callable[[int], None],
    listen: Callable[[int, Curves], None],
) -> int:
    """From `start` finished steps to `loop.steps`, or to Ctrl-C; the steps finished."""
    ranks, first_rank = game.ranks, game.ranks.rank == 0
    steps = range(start, config.loop.steps)
    bar = tqdm(total=config.loop.steps, initial=start, unit="step", desc="fit", disable=not first_rank)
    curves_of = Curves.open(run, start, config.loop.tensorboard) if first_rank else nullcontext()
    with stoppable() as stopped, curves_of as curves, bar:
        began, saved_at = time.perf_counter(), start
        for step, (first, second) in zip(steps, duels, strict=False):
            waited = time.perf_counter() - began
            with _mended(run, saved_at, config):
                row = train_step(game, first.to(ranks.device), second.to(ranks.device), step, config)
            row |= ranks.mean({"stopped": stopped(), "data_wait_s": waited, **_counted((first, second), ranks.world)})
            last = row.pop("stopped") > 0 or step + 1 == config.loop.steps  # Ctrl-C on any of them
            row |= _speeds(row.pop("frames"), flops, time.perf_counter() - began, config.loop, ranks.world)
            if curves:
                curves.write(step + 1, row)
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss_g", "loss_d", "gamma")}, refresh=False)
            bar.update()
            if last or (step + 1) % config.loop.checkpoint_every == 0:
                save(step + 1)
                saved_at = step + 1
            if curves:
                listen(step + 1, curves)
            if last:
                break
            began = time.perf_counter()
    return step + 1


def _counted(batches: tuple[Batch, Batch], world: int) -> dict[str, float]:
    """Times the number of ranks, so that the mean over ranks is all of theirs."""
    frames = sum(batch.target.shape[:2].numel() for batch in batches)
    counts = {name: sum(getattr(batch, name) for batch in batches) for name in ("redraws", "song_starts")}
    return {name: float(world * count) for name, count in {"frames": frames, **counts}.items()}


def _speeds(frames: float, flops: float, seconds: float, c: Loop, world: int) -> dict[str, float]:
    """Of a step; the share of the peak only where the config gives that."""
    speeds = {"frames_per_s": frames / seconds}
    return speeds | ({"peak_share": flops / seconds / (c.peak_tflops * 1e12 * world)} if c.peak_tflops else {})


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, asked between steps; a second one interrupts at once."""
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():  # the only one that may set handlers
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _freeze(game: Game, pairs: Pairs, loader: dict[str, int | str], step: int) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        step=step,
        config=pairs.config,
        codec=pairs.dataset.codec,
        generation=pairs.dataset.index["generation"],
        classes=tuple(pairs.dataset.classes),
        targets=pairs.classes,
        mix_scale=pairs.mix_scale,
        target_scale=pairs.target_scale,
        gamma=game.gamma,
        loader=loader,
        generator=game.generator.state_dict(),
        average=game.average.state_dict(),
        discriminator=game.discriminator.state_dict(),
        generator_optimiser=game.generator_optimiser.state_dict(),
        discriminator_optimiser=game.discriminator_optimiser.state_dict(),
    )


def _fetching(dataset: shards.Dataset, cache_gb: float) -> str:
    """Levels lie within the shards, so that all of the split is fetched before the first step."""
    gb = sum(shard["bytes"] for shard in dataset.splits.get("train", {"shards": []})["shards"]) / 1e9
    said = f"the train split's {gb:.3g} GB of shards are fetched first, for where they sound"
    if gb > cache_gb:
        return f"{said}; and again while training: batches.cache_gb is {cache_gb:.3g}, better more than that"
    return f"{said}; but for those in the cache already"


def _opening(pairs: Pairs, game: Game, flops: float) -> str:
    said = (
        f"{len(pairs)} pairs of {len(pairs.dataset)} songs; parameters: generator {_millions(game.generator)}, "
        f"discriminator {_millions(game.discriminator)}, {flops / 1e12:.3g} TFLOP a step; on {game.ranks.device}"
    )
    if game.ranks.world > 1:
        said += f" and {game.ranks.world - 1} more, each with {1 / game.ranks.world:.1%} of a batch"
    if pairs.dropped:
        said += (
            f"\n{pairs.dropped} of {pairs.targets} target stems are never drawn: nowhere do they sound together with a "
            f"stored mix in {pairs.config.batches.active_share:.0%} of a crop"
        )
    return said


@contextmanager
def _mended(run: Path, saved_at: int, c: Config) -> Iterator[None]:
    """What stops a step is told with what is left, and what to change."""
    kept = f"{run}/checkpoint.pt is the last good checkpoint (step {saved_at})"
    kept = kept if saved_at else "there is no checkpoint yet"
    try:
        yield
    except DivergedError as error:
        mend = "Start another run with a lower optimiser.learning_rate or a higher adagp.gamma"
        raise DivergedError(f"{error}; {kept}. {mend}") from None
    except RuntimeError as error:
        if not isinstance(error, OutOfMemoryError) and "can't allocate memory" not in str(error):  # a GPU's, a CPU's
            raise
        now = c.loop.micro_batch_size or f"0: all of a process's share of {c.batches.batch_size}"
        mend = f"Lower loop.micro_batch_size, how many pairs are taken at a time (now {now}), and run it again"
        mend += "; where one pair is too much, start another run with a lower generator.width and discriminator.width"
        raise RunError(f"the device's memory is too small for a step; {kept}. {mend}") from None


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
