"""Which shard an example belongs to, and dataset.json, which sums up all of a generation's shards.

dataset.json is written last, so its presence means that the generation is complete. Its last line is the sha256 of the
bytes before; it holds the digests of all receipts, and these those of all else: one flipped bit anywhere is found.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.generations import AGAIN, atomic
from shards.place import Listed
from shards.receipt import FORMAT, MOST, ROLES, Receipt, dump_json, is_row, load_receipt, parse_json

HEADER = ("generation", "plan", "codec", "latent_dtype", "levels_rate_hz", "classes", "config", "counts")
_SEAL = b',\n "sha256": "%s"\n}\n'


def shard_names(split: str, count: int) -> list[str]:
    return [f"{split}-{number:06d}.tar" for number in range(count)]


def shard_of(id: str, count: int) -> int:
    """0 … count - 1, by a digest of the id alone, so that a new example moves no other."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % count


def write_index(folder: Path | str, header: Mapping[str, Any], shards: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Writes dataset.json over `shards` (split -> names of its tars), whose receipts must all be there; returns it.

    `header` holds dataset.json's other keys (`HEADER`). Shards without examples are not listed.
    Raises ShardError when a key is missing, an id occurs twice or a latent's dim is not the codec's.
    """
    folder = Path(folder)
    missing = [key for key in HEADER if key not in header]
    if missing:
        raise ShardError(f"the header of {folder / 'dataset.json'} lacks {', '.join(missing)}")
    loaded = {split: [load_receipt(folder / name) for name in names] for split, names in shards.items()}
    filled = {split: [pair for pair in pairs if pair[0].examples] for split, pairs in loaded.items()}
    _check([receipt for pairs in filled.values() for receipt, _ in pairs], header["codec"]["dim"])
    statistics = {split: _statistics([receipt for receipt, _ in pairs]) for split, pairs in filled.items() if pairs}
    index = {
        "format": FORMAT,
        **header,
        "splits": {split: _split(pairs, statistics.get(split, {})) for split, pairs in filled.items()},
        "statistics": statistics,
    }
    for part in folder.glob(".*.part"):  # all shards are written: these are what killed writers left
        part.unlink(missing_ok=True)
    with atomic(folder / "dataset.json") as file:
        file.write(seal(index))
    return index


def seal(index: Mapping[str, Any]) -> bytes:
    """dataset.json's bytes: `index` as JSON, and last its own digest."""
    head = dump_json(index, indent=1).removesuffix(b"\n}\n")
    return head + _SEAL % hashlib.sha256(head).hexdigest().encode()


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """The index that `seal` wrote. Raises ShardError where it is not whole, of another format, or was changed."""
    index = parse_json(data, where)
    found = index.get("format", FORMAT)
    if found != FORMAT:
        told = found if isinstance(found, int) and 0 <= found < 1000 else "none that is known"
        raise ShardError(f"{where} has format {told}; this program reads {FORMAT}: update it, or {AGAIN}")
    missing = [key for key in ("format", *HEADER, "splits", "statistics", "sha256") if key not in index]
    if missing:
        raise ShardError(f"{where} lacks {', '.join(missing)}; delete it and {AGAIN}")
    head = data[: len(data) - len(_SEAL % bytes(64))]
    if data != head + _SEAL % hashlib.sha256(head).hexdigest().encode():
        raise ShardError(f"{where} is not as it was written (damaged, or edited by hand); copy it again or {AGAIN}")
    if not _is_valid(index):
        raise ShardError(f"{where} has no valid list of shards or no valid statistics; delete it and {AGAIN}")
    del index["sha256"]
    return index


def _is_valid(index: dict[str, Any]) -> bool:
    """Whether what readers rely on is of the right kind."""
    try:
        listed = listed_in(index)
        shares = [share for split in index["statistics"].values() for share in (split[role] for role in ROLES)]
        rows = [row for share in shares for row in (share["mean"], share["std"])]
        return (
            len({shard.name for shard in listed}) == len(listed)
            and all(type(share["frames"]) is int and share["frames"] >= 0 for share in shares)
            and all(is_row(row, MOST) and len(row) == index["codec"]["dim"] for row in rows)
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def listed_in(index: Mapping[str, Any]) -> list[Listed]:
    """The shards of what `unseal` gave, split after split."""
    return [Listed.of(shard) for split in index["splits"].values() for shard in split["shards"]]


def _check(receipts: Sequence[Receipt], dim: int) -> None:
    seen: dict[str, str] = {}
    for shard, entry in [(receipt.shard, entry) for receipt in receipts for entry in receipt.examples]:
        if entry.id in seen:
            raise ShardError(f"id {entry.id} is in {seen[entry.id]} and in {shard}; give each example its own")
        seen[entry.id] = shard
        found = entry.shapes["stems.npy"][-1]
        if found != dim:
            raise ShardError(f"{shard}: {entry.id} has latents of dim {found}, but codec.dim is {dim}")


def _split(pairs: Sequence[tuple[Receipt, str]], statistics: Mapping[str, Any]) -> dict[str, Any]:
    entries = [entry for receipt, _ in pairs for entry in receipt.examples]
    listed = [
        {
            "name": receipt.shard,
            "bytes": receipt.bytes,
            "sha256": receipt.sha256,
            "receipt_sha256": digest,
            "examples": len(receipt.examples),
        }
        for receipt, digest in pairs
    ]
    return {
        "shards": listed,
        "examples": len(entries),
        "stems": sum(entry.shapes["stems.npy"][0] for entry in entries),
        "mixes": sum(entry.shapes["mixes.npy"][0] for entry in entries),
        "frames": sum(role["frames"] for role in statistics.values()),
    }


def _statistics(receipts: Sequence[Receipt]) -> dict[str, dict[str, Any]]:
    """By role: mean and population standard deviation of each latent channel; zeros where there are no frames."""
    merged = {}
    for role in ROLES:
        shares = [receipt.statistics[role] for receipt in receipts]
        frames = sum(share["frames"] for share in shares)
        mean = np.sum([share["sum"] for share in shares], axis=0) / max(frames, 1)
        square = np.sum([share["sum_sq"] for share in shares], axis=0) / max(frames, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0.0))
        merged[role] = {"frames": frames, "mean": mean.tolist(), "std": std.tolist()}
    return merged
