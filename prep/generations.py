"""`prep generations`: what lies in OUT/generations, and the removal of what nobody needs any more."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shards
from prep.errors import PrepError
from prep.kept import kept_plans
from prep.lock import locked


@dataclass(frozen=True)
class Generation:
    name: str
    folder: Path
    live: bool
    index: dict[str, Any] | None  # None: not complete, or not readable
    shards: int  # that are finished
    bytes: int
    own_bytes: int  # that no other generation shares

    def line(self) -> str:
        mark = "*" if self.live else " "
        size = f"{self.bytes / 1e6:9.1f} MB, {self.own_bytes / 1e6:.1f} MB of its own"
        if self.index is None:
            return f"{mark} {self.name}  {size}  not complete: {self.shards} shards are finished"
        codec, examples = self.index["config"]["codec"], sum(s["examples"] for s in self.index["splits"].values())
        return f"{mark} {self.name}  {size}  {examples} examples, plan {self.index['plan']}, codec {codec}"


def generations(out: Path) -> list[Generation]:
    """All of them, the live one first, then those that were live, the latest first. Raises PrepError for no dataset."""
    folders = {folder.name: folder for folder in sorted(out.glob("generations/*")) if folder.is_dir()}
    if not folders:
        raise PrepError(f"{out} holds no generations. Give the --out of a `prep build`.")
    order = shards.history(out)
    names = [name for name in order if name in folders]
    names += [name for name in folders if name not in names]
    return [_generation(folders[name], name == next(iter(order), None)) for name in names]


def _generation(folder: Path, live: bool) -> Generation:
    try:
        index: dict[str, Any] | None = shards.open(folder).index
    except shards.ShardError:
        index = None
    stats = [path.stat() for path in folder.iterdir() if path.is_file()]
    return Generation(
        name=folder.name,
        folder=folder,
        live=live,
        index=index,
        shards=sum(shards.finished(tar) is not None for tar in folder.glob("*.tar")),
        bytes=sum(stat.st_size for stat in stats),
        own_bytes=sum(stat.st_size for stat in stats if stat.st_nlink == 1),
    )


def prune(out: Path, keep: int) -> list[Generation]:
    """Removes all generations but the live one and the `keep` complete ones that were live before it, and audio that
    is kept for none of these; the removed ones.

    Who reads a removed one goes on with the shards that are open."""
    with locked(out):  # before anything is looked at: what a build is about to complete must not be taken for a rest
        found = generations(out)
        if not found[0].live or found[0].index is None:
            told = "has no live generation that is complete, so nothing is removed. Run the build again."
            raise PrepError(f"{out} {told}")
        before = [each for each in found[1:] if each.index is not None and each.name in shards.history(out)]
        kept = {found[0].name, *(each.name for each in before[:keep])}
        removed = [each for each in found if each.name not in kept]
        for each in removed:
            (each.folder / "dataset.json").unlink(missing_ok=True)  # first: half a generation must not look whole
            shutil.rmtree(each.folder)
        _prune_kept(out, [each for each in found if each.name in kept])
    return removed


def _prune_kept(out: Path, left: list[Generation]) -> None:
    plans = {each.index["plan"] for each in left if each.index and each.index["config"].get("keep_audio")}
    for each in kept_plans(out):
        if each.folder.name not in plans:
            shutil.rmtree(each.folder)
