"""The commands of `prep` that look after a dataset: generations, their making, their going."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
workers_option = click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="cores")


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device, --batch-frames and --batch-streams, for `device_of`."""
    device = click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the codec runs."
    )
    frames = click.option(
        "--batch-frames",
        type=click.IntRange(1, 1 << 16),
        help="With cuda: frames to encode at a time; fewer take less memory. [default: 128 a stream]",
    )
    streams = click.option(
        "--batch-streams",
        type=click.IntRange(1, 1 << 10),
        help="With cuda: of so many streams, stems or mixes, at a time. [default: 8]",
    )
    return device(frames(streams(command)))


@click.command()
@click.argument("data", type=PATH)
@click.option("--codec", required=True, help="NAME or NAME=CHECKPOINT, such as causal=runs/codec/causal.safetensors.")
@click.option("--root", type=PATH, help="The corpus that DATA was built from; not needed where its audio is kept.")
@workers_option
@device_options
def rebuild(data: Path, codec: str, root: Path | None, workers: int, device: str, **batch: int | None) -> None:
    """Encode DATA's plan again with another codec, and make that the live generation."""
    from prep.device import device_of
    from prep.rebuild import rebuild as run

    there = device_of(device, **batch)
    click.echo("\n".join(run(data, root, codec, workers, device=there).lines()))
    click.echo(f"  back to the generation before: prep rollback {data}")


@click.command()
@click.argument("data", type=PATH)
def rollback(data: Path) -> None:
    """Make the generation live again that was so before."""
    from prep.lock import locked
    from shards import roll_back

    with locked(data):
        click.echo(f"{data}: live is generation {roll_back(data)}")


@click.command()
@click.argument("data", type=PATH)
@click.option("--prune", is_flag=True, help="Remove all but the live one and --keep others.")
@click.option(
    "--keep", type=click.IntRange(0), default=1, show_default=True, help="Of those that were live before, the last N."
)
def generations(data: Path, prune: bool, keep: int) -> None:
    """List DATA's generations, the live one (*) first; with --prune, remove old and unfinished ones."""
    from prep.generations import generations as found
    from prep.generations import prune as remove
    from prep.kept import kept_plans

    if prune:
        before = sum(each.bytes for each in kept_plans(data))
        removed = remove(data, keep)
        kept = before - sum(each.bytes for each in kept_plans(data))
        freed = (sum(each.own_bytes for each in removed) + kept) / 1e6
        click.echo(f"{len(removed)} generations removed, {freed:.1f} MB freed")
    click.echo("\n".join([*(each.line() for each in found(data)), *(each.line() for each in kept_plans(data))]))


@click.command()
@click.argument("data", type=PATH)
@click.option("--root", type=PATH, help="The corpus that DATA was built from, to look for changes in it.")
def status(data: Path, root: Path | None) -> None:
    """Tell what of DATA is complete, stale (and why) or missing."""
    from prep.sources.slakh import read_slakh
    from prep.status import lines

    click.echo("\n".join(lines(data, root, read_slakh(root)[0] if root else [])))


@click.command()
@click.argument("data", type=PATH)
def finish(data: Path) -> None:
    """Complete DATA when all parts of its build (`prep build --part`) have ended."""
    from prep.build import complete
    from prep.lock import locked

    with locked(data):
        click.echo(f"{data}: complete; live is generation {complete(data)}")


@click.command()
@click.argument("data", type=PATH)
@click.option("--repair", is_flag=True, help="Make again what is faulty in the live generation.")
@click.option("--root", type=PATH, help="With --repair: the corpus that DATA was built from.")
@workers_option
@device_options
def verify(data: Path, repair: bool, root: Path | None, workers: int, device: str, **batch: int | None) -> None:
    """Hold all of DATA to its digests: a line for each fault, and exit code 1 where there is one."""
    from prep.device import device_of
    from prep.verify import verify as run

    if not run(data, workers, repair, root, device=device_of(device, **batch)):
        sys.exit(1)


@click.command()
@click.argument("codec")
@click.option("--audio", type=PATH, multiple=True, help="Sound files to compare runs on; by default made ones.")
def certify(codec: str, audio: tuple[Path, ...]) -> None:
    """Measure whether CODEC (causal, or NAME=CHECKPOINT) does what it says: exit code 1 where it does not."""
    from prep.certified import certify_here

    certificate = certify_here(codec, audio)
    click.echo("\n".join(certificate.lines()))
    if certificate.failed:
        sys.exit(1)


COMMANDS = [rebuild, rollback, generations, status, finish, verify, certify]
