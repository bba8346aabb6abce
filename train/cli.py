"""The `train` command. Commands import what they run when they run, so that --help is quick."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

if TYPE_CHECKING:
    from train.live import Player

P = ParamSpec("P")
SEED = click.IntRange(0, 2**31 - 1)


class Finite(click.FloatRange):
    """Neither NaN, which lies in every range of click's, nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value} is not finite.", param, ctx)


def told_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """What the user can mend is shown without a traceback, with a non-zero exit."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        from prep.codecs import CodecError
        from shards import ShardError
        from train.errors import TrainError

        try:
            command(*args, **kwargs)
        except (TrainError, ShardError, CodecError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:  # a folder without permission, a full disk
            raise click.ClickException(f"{error.filename or 'the system'}: {error.strerror or error}.") from None

    return wrapped


@click.group()
def main() -> None:
    """Trains and plays LiveBand, a causal GAN that accompanies a live musician."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="The --out of a `prep build`, or its address (https://…, s3://…).")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder for checkpoint and curves.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Overrides a setting; may be repeated.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@told_in_one_line
def fit(config: Path, data: str, run: Path, overrides: tuple[str, ...], device: str) -> None:
    """Train as the YAML file CONFIG says; the same --run again goes on where it stopped."""
    from train.config import load
    from train.loop import fit as train

    settings = load(config, overrides)
    finished = train(settings, data, run, device, click.echo)
    if finished < settings.loop.steps:
        click.echo(f"stopped at step {finished} of {settings.loop.steps}; run the same command again to go on")
    else:
        click.echo(f"{run}/checkpoint.pt; play it: train play {run} --mix in.wav --instrument Bass --out out.wav")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--mix", type=click.Path(path_type=Path), help="What to play along with: WAV or FLAC.")
@click.option("--out", type=click.Path(path_type=Path), help="The accompaniment alone: a 16-bit WAV.")
@click.option("--live", is_flag=True, help="Play along with an audio device instead, until Ctrl-C.")
@click.option("--instrument", required=True, help="A class of the training data, such as Bass.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Another seed plays another take.")
@click.option("--codec", "spec", default="causal", show_default=True, help="causal, or causal=FILE.safetensors.")
@click.option(
    "--input-lufs",
    type=Finite(-60, 0),
    help="How loud the input is; it is heard at -18 LUFS. [default: a file is measured, --live taken as it comes]",
)
@click.option("--calibrate", type=Finite(1, 600), metavar="S", help="With --live: measure it for S seconds.")
@click.option("--device-in", help="With --live: a part of the name, or the number. [default: the system's]")
@click.option("--device-out", help="The same for what is played.")
@click.option("--budget-ms", type=Finite(0, 1000), help="With --live: time for an answer. [default: one frame]")
@told_in_one_line
def play(run: Path, live: bool, instrument: str, seed: int, spec: str, **given: Any) -> None:
    """Accompany a mix with the model in RUN, frame by frame as if live. RUN may be one of its kept checkpoints."""
    from prep.codecs import load_codec
    from train.checkpoint import load
    from train.live import Player, find_instrument, untaught

    _agree(live, given)
    checkpoint = load(run)
    find_instrument(instrument, checkpoint.classes)  # before the codec, which takes a while
    player = Player.of(load_codec(spec), checkpoint, instrument)
    for line in untaught(player, checkpoint):
        click.echo(line)
    (_play_live if live else _play_file)(player, seed, given)


def _agree(live: bool, given: dict[str, Any]) -> None:
    """Raises UsageError for options of which one is missing, or means nothing."""
    files, device = ("mix", "out"), ("calibrate", "device_in", "device_out", "budget_ms")
    for name in device if not live else files:
        if given[name] is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} {'goes with' if not live else 'does not go with'} --live."
            )
    for name in () if live else files:
        if given[name] is None:
            raise click.UsageError(f"Give --{name}, or --live to play with an audio device.")
    if given["calibrate"] and given["input_lufs"] is not None:
        raise click.UsageError("--calibrate measures what --input-lufs says; give one of them.")


def _play_file(player: Player, seed: int, given: dict[str, Any]) -> None:
    from train import files

    performance, notes = files.play(player, given["mix"], given["out"], seed, given["input_lufs"])
    click.echo("\n".join([*notes, performance.latency.table(), str(given["out"])]))


def _play_live(player: Player, seed: int, given: dict[str, Any]) -> None:
    from train import device

    chosen = [int(name) if name and name.isdecimal() else name for name in (given["device_in"], given["device_out"])]
    level = device.Level(given["input_lufs"], given["calibrate"] or 0.0)
    budget_s = 1 / player.identity.frame_rate if given["budget_ms"] is None else given["budget_ms"] / 1000
    device.play(player, (chosen[0], chosen[1]), level, budget_s, seed, click.echo)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="The dataset that RUN was trained on, or another of its codec.")
@click.option("--split", default="validation", show_default=True)
@click.option("--seconds", type=Finite(2), default=20.0, show_default=True, help="Of each pair.")
@click.option("--pairs", type=click.IntRange(2), default=64, show_default=True, help="At most so many, drawn.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Draws pairs, shuffled mixes and noise.")
@click.option("--codec", "spec", default="causal", show_default=True, help="causal, or causal=FILE.safetensors.")
@told_in_one_line
def evaluate(run: Path, data: str, split: str, seconds: float, pairs: int, seed: int, spec: str) -> None:
    """Whether what RUN's model plays goes with the mix that it hears: better than what it plays to another song's?"""
    import shards
    from prep.codecs import load_codec
    from train.checkpoint import load
    from train.evaluate import evaluate as measure

    checkpoint, dataset = load(run), shards.open(data)
    scores = measure(checkpoint, dataset, load_codec(spec), split, seconds, pairs, seed)
    click.echo(f"{run} after {checkpoint.step} steps, on the {split} split, {seconds:g} s a pair\n{scores.table()}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A PNG to draw.")
@told_in_one_line
def curves(run: Path, out: Path) -> None:
    """Draw what the training in the folder RUN measured: losses, advantage, penalties, gradients."""
    from train.curves import draw

    draw(run, out)
    click.echo(out)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Songs in Slakh2100's layout, at 44.1 kHz."
)
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder for weights and curves.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@told_in_one_line
def codec(config: Path, data: Path, run: Path, device: str) -> None:
    """Train the causal codec as the YAML file CONFIG says; the same --run again goes on where it stopped."""
    from train.codec.fit import fit_codec
    from train.codec.recipe import read_recipe

    recipe = read_recipe(config)
    finished = fit_codec(recipe, data, run, device)
    if finished < recipe.steps:
        click.echo(f"stopped at step {finished} of {recipe.steps}; run the same command again to go on")
    else:
        weights = run / "causal.safetensors"
        click.echo(f"{weights}; score it: train codec-score --codec causal={weights} --data HELD_OUT")


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Songs that the codec was not trained on: Slakh2100's layout, or WAV or FLAC. May be repeated.",
)
@click.option(
    "--codec",
    "specs",
    default=["causal"],
    show_default=True,
    multiple=True,
    help="causal, or causal=FILE.safetensors. May be repeated; the first one is held to the gates.",
)
@click.option("--seconds", type=Finite(1), default=60.0, show_default=True, help="From the middle of each mix.")
@click.option("--card", type=click.Path(path_type=Path), help="A Markdown file to put the figures into, at its marks.")
@click.option("--picture", type=click.Path(path_type=Path), help="A PNG to draw: spectrograms of three clips.")
@told_in_one_line
def codec_score(
    data: tuple[Path, ...], specs: tuple[str, ...], seconds: float, card: Path | None, picture: Path | None
) -> None:
    """Print codecs' figures on mixes, beside yardsticks of the same frame and dimension, and Opus."""
    from train.codec.report import report

    click.echo(report(data, specs, seconds, card, picture), nl=False)


if __name__ == "__main__":  # torchrun --nproc-per-node 8 -m -- train.cli fit …
    main()
