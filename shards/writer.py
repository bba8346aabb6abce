"""Writes one shard: a plain WebDataset tar of examples, then its receipt.

Equal examples give equal bytes: ustar, members and JSON keys in a fixed order, mtime, owner and mode fixed.
"""

import io
import math
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from shards.errors import ShardError
from shards.generations import AGAIN, atomic
from shards.place import SHARD
from shards.receipt import ARRAYS, ID, ROLES, Entry, Receipt, digests, dump_json, npy_header

T = TypeVar("T")
# the json's keys in their order; [float] is a list of floats. One type a key and no empty list, because Hugging Face
# `datasets` infers the types of all examples from the first five. (So it loads a dataset whose first five examples have
# no mixes, while a later one has, only with streaming=True.)
_FIELDS: dict[str, Any] = {
    "id": str,
    "original": str,
    "augmentation": str,
    "split": str,
    "corpus": str,
    "licence": str,
    "n_stems": int,
    "n_mixes": int,
    "frames": int,
    "samples": int,
    "levels_frames": int,
    "stems": [str],
    "programs": [int],
    "instruments": [str],
    "members": [[int]],
    "gains_db": [float],
    "loudness_lufs": [float],
}


@dataclass(frozen=True)
class Example:
    """`stems` (n, T, D), `mixes` (m, T, D; m may be 0) and `levels` (n + m, T50; dB), all float16 and finite.

    `sources`: stem name -> digest of what it was made of; `streams`: for each stem and each mix, the digest of all that
    decides its bytes; `audio`: of all that decides its level. They go to the receipt, not to the tar.
    """

    id: str
    meta: dict[str, Any]
    stems: np.ndarray
    mixes: np.ndarray
    levels: np.ndarray
    sources: dict[str, str]
    streams: tuple[str, ...]
    audio: tuple[str, ...]


def write_shard(
    path: Path | str, examples: Iterable[Example], fingerprint: dict[str, str], made_of: str = ""
) -> Receipt:
    """Writes `path` (`<split>-<6 digits>.tar`) and its receipt, or neither. `examples` are taken one at a time.

    The receipt is renamed into place last: where it is, its tar is whole. No examples: a receipt and no tar.
    Raises ShardError for an example that is not of the format or a disk that takes no more, and whatever `examples`
    raises; an older shard is then still there and whole.
    """
    path = Path(path)
    named = SHARD.fullmatch(path.name)
    if not named:
        raise ShardError(f"{path}: a shard is named <split>-<6 digits>.tar, such as train-000000.tar")
    theirs: list[Exception] = []
    checked = (_checked(path, named[1], example) for example in _noting(examples, theirs))
    try:
        return _written(path, checked, (fingerprint, made_of))
    except OSError as error:
        if error in theirs:
            raise
        raise ShardError(
            f"{path} cannot be written ({error.strerror or error}); finished shards stay: "
            f"make room or mend the disk and {AGAIN}"
        ) from error


def _noting(items: Iterable[T], raised: list[Exception]) -> Iterator[T]:
    """`items`; what they raise is noted in `raised`, so that it is not taken for the disk's fault."""
    try:
        yield from items
    except Exception as error:
        raised.append(error)
        raise


def _written(path: Path, examples: Iterator[Example], said: tuple[dict[str, str], str]) -> Receipt:
    """`said`: of the whole shard, by its caller."""
    first, receipt_path = next(examples, None), path.with_suffix(".json")
    with atomic(receipt_path) as beside:
        if first is None:
            receipt = Receipt(path.name, *digests(io.BytesIO()), (), _Tally().to_json(), *said)
            beside.write(dump_json(receipt.to_json()))
            _to_disk(beside)
            receipt_path.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            return receipt
        with atomic(path) as file:
            tally = _Tally()
            entries = tuple(_write_tar(file, chain([first], examples), tally))
            receipt = Receipt(path.name, *digests(file), entries, tally.to_json(), *said)
            beside.write(dump_json(receipt.to_json()))
            # From here on the disk is asked for nothing but names
            _to_disk(file, beside)
            receipt_path.unlink(missing_ok=True)  # an older receipt must not vouch for the new tar
            return receipt


def _to_disk(*files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


class _Tally:
    """Sums by role over the frames of all streams, in float64."""

    def __init__(self) -> None:
        self._shares: dict[str, dict[str, Any]] = {role: {"frames": 0, "sum": 0.0, "sum_sq": 0.0} for role in ROLES}

    def add(self, role: str, streams: np.ndarray) -> None:
        share = self._shares[role]
        for stream in (each.astype(np.float64) for each in streams):  # one at a time: float64 is four times as much
            share["frames"] += len(stream)
            share["sum"] = share["sum"] + stream.sum(axis=0)
            share["sum_sq"] = share["sum_sq"] + np.square(stream).sum(axis=0)

    def to_json(self) -> dict[str, dict[str, Any]]:
        dim = np.size(self._shares["stem"]["sum"])
        return {
            role: {"frames": share["frames"], **{key: _row(share[key], dim) for key in ("sum", "sum_sq")}}
            for role, share in self._shares.items()
        }


def _row(value: Any, dim: int) -> list[float]:
    return np.broadcast_to(value, dim).tolist()


def _write_tar(file: BinaryIO, examples: Iterable[Example], tally: _Tally) -> Iterator[Entry]:
    seen = set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for example in examples:
            if example.id in seen:
                raise ShardError(f"id {example.id} came twice into one shard; give each example its own")
            seen.add(example.id)
            arrays = dict(zip(ARRAYS, (example.stems, example.mixes, example.levels), strict=True))
            json = dump_json({key: example.meta[key] for key in _FIELDS})
            members = {"json": _add(tar, file, f"{example.id}.json", json)}
            for name, array in arrays.items():
                data = b"".join([npy_header(array.shape), np.ascontiguousarray(array).data])
                members[name] = _add(tar, file, f"{example.id}.{name}", data)
            tally.add("stem", example.stems)
            tally.add("mix", example.mixes)
            shapes = {name: array.shape for name, array in arrays.items()}
            yield Entry(example.id, members, example.sources, shapes, example.streams, example.audio)


def _add(tar: tarfile.TarFile, file: BinaryIO, name: str, data: bytes) -> tuple[int, int]:
    info = tarfile.TarInfo(name)  # mtime, uid and gid are 0, mode is 0644, owner names are empty
    info.size = len(data)
    offset = file.tell() + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset, len(data)


def _checked(path: Path, split: str, example: Example) -> Example:
    fault = _meta_fault(example, split) or _array_fault(example)
    if fault:
        raise ShardError(f"{path.name}: example {example.id!r}: {fault}")
    return example


def _meta_fault(example: Example, split: str) -> str | None:
    meta = example.meta
    if not ID.fullmatch(example.id):
        return f"its id does not match {ID.pattern}; use lower case, digits, _ and - only"
    if meta.keys() != _FIELDS.keys():
        return f"its json has the wrong keys; missing or extra: {', '.join(sorted(meta.keys() ^ _FIELDS.keys()))}"
    for key, kind in _FIELDS.items():
        if not _is_of(meta[key], kind):
            return f"{key} is {str(meta[key])[:60]}; it must be plain {_told(kind)} (1.0, not 1; no NaN; not numpy's)"
    stems, rows = meta["n_stems"], meta["n_stems"] + meta["n_mixes"]
    if not stems:
        return "it has no stems; leave it out"
    for key, length in {"stems": stems, "programs": stems, "instruments": stems, "members": rows}.items():
        if len(meta[key]) != length:
            return f"{key} has {len(meta[key])} rows; n_stems {stems} and n_mixes {meta['n_mixes']} ask for {length}"
    if len(meta["gains_db"]) != rows or len(meta["loudness_lufs"]) != rows:
        return f"gains_db and loudness_lufs need a row for each of the {rows} streams"
    if {len(example.streams), len(example.audio)} != {rows}:
        return f"streams and audio need a digest for each of the {rows} streams"
    if (meta["id"], meta["split"]) != (example.id, split):
        return f"its json says id {meta['id']} of split {meta['split']}; the shard is of split {split}"
    if meta["members"][:stems] != [[stem] for stem in range(stems)]:
        return "members must begin with the stems' own rows [[0], [1], …]"
    if any(not row or not set(row) <= set(range(stems)) for row in meta["members"]):
        return f"members has a row that is empty or names a stem that is not 0 … {stems - 1}"
    return None


def _array_fault(example: Example) -> str | None:
    meta, rows = example.meta, example.meta["n_stems"] + example.meta["n_mixes"]
    dim = example.stems.shape[-1:]
    wanted = {
        "stems": (meta["n_stems"], meta["frames"], *dim),
        "mixes": (meta["n_mixes"], meta["frames"], *dim),
        "levels": (rows, meta["levels_frames"]),
    }
    for name, shape in wanted.items():
        array: np.ndarray = getattr(example, name)
        if array.shape != shape or 0 in shape[1:]:
            return f"{name} has shape {array.shape}; its json asks for {shape}, with frames and dim above 0"
        if array.dtype != np.dtype("<f2"):
            return f"{name} is {array.dtype}; it must be float16"
        if not np.isfinite(array).all():
            return f"{name} holds NaN or infinity (float16 ends at 65504); mend the audio or the codec it came from"
    return None


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_of(item, kind[0]) for item in value)
    return type(value) is kind and (kind is not float or math.isfinite(value))


def _told(kind: Any) -> str:
    return f"list of {_told(kind[0])}" if isinstance(kind, list) else kind.__name__
