"""Who is asked whether a dataset is damaged: reading all of it, verifying it, and webdataset's default reader."""

from __future__ import annotations

import gc
import hashlib
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import webdataset

import shards
from shards import ShardError
from shards.verify import verify
from tests.shards.damage import tars_of

Seen = list[tuple[str, str]]


def reading(out: Path) -> list[str]:
    """What opening and then reading every member of every example tells, a line a member that cannot be had."""
    lines = []
    try:
        dataset = shards.open(out)
    except ShardError as error:
        return [str(error)]
    for number in range(len(dataset)):
        for name in ("meta", "stems", "mixes", "levels"):
            try:
                record = dataset[number]
                _ = record.meta if name == "meta" else np.asarray(record[name])
            except ShardError as error:
                lines.append(str(error))
    for shard in dataset.shards:
        shard.release()
    return lines


def verifying(out: Path) -> list[str]:
    """What a check of every byte tells."""
    try:
        return [str(fault) for fault in verify(out, workers=1)]
    except ShardError as error:
        return [str(error)]


def webdatasets(tars: list[Path]) -> tuple[Seen | None, bool]:
    """Through its default reader and decoder: (key, digest of all that was decoded) of each example, None where it
    raises; and whether it warned."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = None
        with suppress(Exception):
            found = _webdatasets(tars)
        gc.collect()  # it leaves closing its tars to the collector, which warns of that
    return found, any(not issubclass(warning.category, ResourceWarning) for warning in told)


def _webdatasets(tars: list[Path]) -> Seen:
    found = []
    for item in webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode():
        whole = hashlib.sha256()
        for name in sorted(key for key in item if not key.startswith("__")):
            value = item[name]
            array = isinstance(value, np.ndarray)
            whole.update(f"{name} {value.dtype} {value.shape}".encode() if array else f"{name} {value}".encode())
            whole.update(np.ascontiguousarray(value).tobytes() if array else b"")
        found.append((item["__key__"], whole.hexdigest()))
    return found


def webdataset_says(tars: list[Path], sound: Seen) -> str:
    """ "raised", "warned", "same" (the damage is in nothing that it reads), "lost" or "wrong" (both in silence)."""
    found, warned = webdatasets(tars)
    if found is None or warned:
        return "raised" if found is None else "warned"
    if found == sound:
        return "same"
    return "lost" if len(found) < len(sound) and set(found) <= set(sound) else "wrong"


def sound_of(out: Path) -> tuple[list[Path], Seen]:
    """The tars, relative to OUT, and what webdataset reads in them."""
    tars = tars_of(out)
    found, _ = webdatasets(tars)
    assert found, "webdataset cannot read it undamaged"
    return [tar.relative_to(out) for tar in tars], found
