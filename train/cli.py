"""The `train` command. Commands import what they run when they run, so that --help is quick."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import click

P = ParamSpec("P")


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
@click.option("--mix", type=click.Path(path_type=Path), required=True, help="What to play along with: WAV or FLAC.")
@click.option("--instrument", required=True, help="A class of the training data, such as Bass.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The accompaniment alone: a 16-bit WAV.")
@click.option("--seed", default=0, show_default=True, help="Another seed plays another take.")
@click.option("--codec", "spec", default="causal", show_default=True, help="causal, or causal=FILE.safetensors.")
@told_in_one_line
def play(run: Path, mix: Path, instrument: str, out: Path, seed: int, spec: str) -> None:
    """Accompany a mix with the model in RUN, frame by frame as if live. RUN may be one of its kept checkpoints."""
    from prep.codecs import load_codec
    from train import live
    from train.checkpoint import load

    checkpoint = load(run)
    live.find_instrument(instrument, checkpoint.classes)
    audio, rate = live.read_mix(mix)
    performance = live.play(load_codec(spec), checkpoint, audio, rate, instrument, seed)
    attenuated = live.write_wav(out, performance.audio, performance.rate)
    for line in (*performance.notes, attenuated, performance.latency.table(), str(out)):
        if line:
            click.echo(line)


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
@click.option(
    "--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="From the middle of each mix."
)
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
