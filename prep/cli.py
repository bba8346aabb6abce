"""The `prep` command: music in, latents out. Thin: each command reads its options, calls one function, prints."""

from __future__ import annotations

import difflib
import errno
import math
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from prep import cli_dataset
from prep.cli_dataset import PATH, device_options, workers_option
from prep.errors import PrepError
from prep.stop import stoppable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Group(click.Group):
    """Shows what a user can mend as one line."""

    def invoke(self, ctx: click.Context) -> object:
        from shards import ShardError

        try:
            with stoppable():
                return super().invoke(ctx)
        except (PrepError, ShardError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:  # a folder without permission, a full disk
            mend = " Make room and run the same command again; what is finished stays." if error.errno in _FULL else ""
            told = f"{error.filename or 'the system'}: {error.strerror or error}.{mend}"
            raise click.ClickException(told) from None
        except KeyboardInterrupt as stop:
            told = "".join(f" {note}." for note in getattr(stop, "__notes__", []))
            click.echo(f"\nStopped.{told} What is finished stays; the same command goes on from there.", err=True)
            if stop.args:  # by a signal; the interpreter's own end, with torch in it, would take longer than the rest
                sys.stdout.flush()
                os._exit(128 + stop.args[0])
            sys.exit(130)


@click.group(cls=_Group)
def main() -> None:
    """Gets music ready: compose, render, build; rebuild when the codec improves."""


for _command in cli_dataset.COMMANDS:
    main.add_command(_command)


@main.command()
@click.argument("out", type=PATH)
@click.option("--songs", type=click.IntRange(1), required=True)
@click.option("--seed", type=int, default=0, show_default=True)
def compose(out: Path, songs: int, seed: int) -> None:
    """Write original General MIDI songs into OUT."""
    from prep.compose import compose as write_songs

    paths = write_songs(out, songs, seed)
    click.echo(f"{len(paths)} songs in {out}. Next: prep render {out} CORPUS")


@main.command()
@click.argument("midi_dir", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--soundfont", type=PATH, multiple=True, help="One or several; by default TimGM6mb, which pretty_midi ships."
)
@click.option("--channels", type=click.IntRange(1, 2), default=1, show_default=True, help="1 as Slakh2100 has it.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--renditions",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="As many more of each training song, transposed and re-timed as the recipe's `augment` says.",
)
@click.option("--config", type=PATH, help="A recipe; what `augment` says in it of speed and pitch is used.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a setting of the recipe.")
@workers_option
def render(
    midi_dir: Path,
    out: Path,
    soundfont: tuple[Path, ...],
    channels: int,
    seed: int,
    renditions: int,
    config: Path | None,
    overrides: tuple[str, ...],
    workers: int,
) -> None:
    """Render a folder of General MIDI files to stems, in Slakh2100's layout."""
    from prep.config import read_config
    from prep.render import render_corpus

    summary = render_corpus(
        midi_dir,
        out,
        soundfonts=soundfont,
        channels=channels,
        seed=seed,
        renditions=renditions,
        augment=read_config(config, overrides).augment,
        workers=workers,
    )
    click.echo("\n".join(summary.lines()))
    if not summary.rendered:
        sys.exit(1)


@main.command()
@click.option("--dataset", required=True, help="slakh")
@click.option("--root", type=PATH, help="The corpus. [default: $GREENROOM_DATA/DATASET]")
@click.option("--out", type=PATH, help="The dataset. [default: out/DATASET]")
@click.option("--config", type=PATH, help="A recipe, such as configs/slakh.yaml.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a setting of the recipe.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N multitracks.")
@click.option("--rescan", is_flag=True, help="Decode every source again, whatever the last scan found.")
@click.option("--part", metavar="I/N", help="Build every N-th shard, from the I-th: one task of an array job.")
@click.option("--dry-run", is_flag=True, help="Scan, plan, tell what would be built in what time, and stop.")
@workers_option
@device_options
def build(
    dataset: str,
    root: Path | None,
    out: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    limit: int | None,
    rescan: bool,
    part: str | None,
    dry_run: bool,
    workers: int,
    device: str,
    **batch: int | None,
) -> None:
    """Build or update a dataset of causal latents."""
    from prep.config import read_config

    settings = read_config(config, overrides)
    if dataset != "slakh":
        near = difflib.get_close_matches(dataset.lower(), ["slakh"], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise PrepError(f"--dataset {dataset} is unknown; there is: slakh.{hint}")
    root = root or _default_root(dataset)

    from prep.build import Part, build_part, finish
    from prep.device import device_of
    from prep.draft import Corpus, check_out, survey
    from prep.dryrun import lines
    from prep.lock import locked
    from prep.sources.slakh import read_slakh

    parted, there = Part.of_text(part) if part else None, device_of(device, **batch)
    multitracks, rejects = read_slakh(root)
    corpus = Corpus(dataset, root, multitracks[:limit], rejects)
    if limit and limit < len(multitracks):
        click.echo(f"--limit {limit}: the first {limit} of {len(multitracks)} multitracks.")
    out = check_out(out or Path("out") / dataset)
    if parted and not dry_run:
        click.echo("\n".join(build_part(corpus, out, settings, workers, parted, rescan=rescan, device=there).lines()))
        return
    with nullcontext() if dry_run else locked(out):
        draft = survey(corpus, out, settings, workers, rescan=rescan, device=there)
        click.echo("\n".join(lines(draft, workers) if dry_run else finish(draft, workers).lines()))


@main.command()
@click.argument("data", type=PATH)
@click.option("--add", type=click.IntRange(1), help="Draw N more mixes for each target, and build them.")
@click.option("--root", type=PATH, help="With --add: the corpus that DATA was built from.")
@workers_option
@device_options
def mixes(data: Path, add: int | None, root: Path | None, workers: int, device: str, **batch: int | None) -> None:
    """Tell what more mixes would bring a dataset; with --add, add them. Stems and mixes that are there stay."""
    from prep.device import device_of
    from prep.mixes import add_mixes, costs_of

    if add is None:
        click.echo("\n".join(costs_of(data)))
        return
    if root is None:
        raise PrepError("--add needs the corpus that the dataset was built from: --root FOLDER.")
    report = add_mixes(data, root, add, workers, device=device_of(device, **batch))
    click.echo("\n".join(report.lines()))
    total = report.index["config"]["mixing"]["subsets_per_target"]
    click.echo(f"  a later `prep build` keeps them with --set mixing.subsets_per_target={total}")


@main.command()
@click.argument("data", type=PATH)
@click.argument("out", type=PATH)
@click.option("--root", type=PATH, required=True, help="The corpus that DATA was built from.")
@click.option("--instrument", default="Bass", show_default=True, help="The class of the target.")
@click.option("--split", default="test", show_default=True)
@click.option("--id", help="This example, whatever its split; a rendition, say.")
def excerpt(data: Path, out: Path, root: Path, instrument: str, split: str, id: str | None) -> None:
    """Write one example's mix, target and decoded target as WAV into OUT."""
    from prep.excerpt import write_excerpt

    written = write_excerpt(data, root, out, instrument, split, id)
    click.echo(f"{written.id}: target {written.target} ({instrument}), mix of {', '.join(written.members)}")
    click.echo("\n".join(f"  {path}" for path in written.paths))


class Finite(click.FloatRange):
    """Neither NaN, which lies in every range of click's, nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value} is not finite.", param, ctx)


@main.command()
@click.argument("audio", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="A PNG.")
@click.option("--start", type=Finite(0), default=0.0, show_default=True, help="Seconds.")
@click.option("--length", type=Finite(0.1), default=20.0, show_default=True, help="Seconds.")
def picture(audio: tuple[Path, ...], out: Path, start: float, length: float) -> None:
    """Draw the spectrograms of audio files, one below the other."""
    from prep.picture import draw_spectrograms

    click.echo(f"{draw_spectrograms(list(audio), out, start, length)}")


def _default_root(dataset: str) -> Path:
    if not (data := os.environ.get("GREENROOM_DATA")):
        raise PrepError(f"--root is not given and $GREENROOM_DATA is not set. Say where {dataset} lies: --root FOLDER.")
    return Path(data) / dataset


if __name__ == "__main__":
    main()
