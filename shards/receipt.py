"""The receipt that lies beside each tar: what is in it, where, and the digests that tell whether it still is.

Offsets and sizes are bytes and mean a member's data in the tar; the data of an array member is a whole .npy file.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import ShardError
from shards.generations import AGAIN
from shards.place import SHARD, Folder

FORMAT = 3
ARRAYS = ("stems.npy", "mixes.npy", "levels.npy")
MEMBERS = ("json", *ARRAYS)
ROLES = ("stem", "mix")
BLOCK_BYTES = 65536
DIGEST_BYTES = 8  # of each block's sha256, which are kept
Digests = bytes
# webdataset lower-cases keys and splits them at dots; 80 leaves room for a suffix in a plain ustar name of 100
ID = re.compile(r"[a-z0-9_-]{1,80}")
MOST = 65504.0  # float16 ends there, and so does what a latent's mean or deviation can be


@dataclass(frozen=True)
class Entry:
    """One example's place in its tar: `members` holds (offset, size), `shapes` those of the array members.

    `streams` has a digest for each row of stems and then of mixes: streams with equal digests have equal bytes. So has
    `audio`: where those are equal, so are levels, gain and loudness, whatever the codec.
    """

    id: str
    members: dict[str, tuple[int, int]]
    sources: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    streams: tuple[str, ...]
    audio: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """`blocks` are the first 8 bytes of each 64 KiB block's sha256, `statistics` {role: {frames, sum, sum_sq}}.

    Shards of one name with equal `made_of` have equal bytes, up to what the fingerprint says.
    A shard that no example fell into has a receipt of no examples and 0 bytes, and no tar: readers stumble over an
    empty one.
    """

    shard: str
    bytes: int
    sha256: str
    blocks: Digests
    examples: tuple[Entry, ...]
    statistics: dict[str, dict[str, Any]]
    fingerprint: dict[str, str]
    made_of: str = ""

    def to_json(self) -> dict[str, Any]:
        examples = [
            {
                "id": entry.id,
                "members": {name: list(place) for name, place in entry.members.items()},
                "sources": entry.sources,
                "shapes": {name: list(shape) for name, shape in entry.shapes.items()},
                "streams": list(entry.streams),
                "audio": list(entry.audio),
            }
            for entry in self.examples
        ]
        return {
            "format": FORMAT,
            "shard": self.shard,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "blocks": [self.blocks[i : i + DIGEST_BYTES].hex() for i in range(0, len(self.blocks), DIGEST_BYTES)],
            "examples": examples,
            "statistics": self.statistics,
            "fingerprint": self.fingerprint,
            "made_of": self.made_of,
        }

    def right(self, block: int, data: memoryview) -> bool:
        """Whether these are the block's bytes."""
        wanted = self.blocks[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]
        return hashlib.sha256(data).digest()[:DIGEST_BYTES] == wanted

    def within(self, block: int) -> list[str]:
        """What lies in a block: members, and of an array member the streams (its rows)."""
        low, high = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
        return [
            f"{entry.id}.{name}{_rows(entry, name, low - offset, high - offset)}"
            for entry in self.examples
            for name, (offset, size) in entry.members.items()
            if offset - 512 < high and low < offset + size  # a member begins with its 512 bytes of tar header
        ]


def _rows(entry: Entry, name: str, low: int, high: int) -> str:
    """Which rows the bytes low … high - 1 of an array member hold."""
    if name not in entry.shapes or not entry.shapes[name][0]:
        return ""
    rows, a_row = entry.shapes[name][0], 2 * math.prod(entry.shapes[name][1:])
    first, last = max(0, low - 128) // a_row, min(rows - 1, max(0, high - 1 - 128) // a_row)
    return f" stream {first}" if first == last else f" streams {first} to {last}"


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The 128 bytes before a float16 array in C order (numpy's .npy format 1.0).

    Written here, not by numpy, whose padding has changed between releases: equal arrays are equal bytes.
    """
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode("ascii") + b"\n"


def npy_size(shape: tuple[int, ...]) -> int:
    return 128 + 2 * math.prod(shape)


def digests(file: BinaryIO) -> tuple[int, str, bytes]:
    """(bytes, sha256, block digests) of a file from its beginning."""
    file.seek(0)
    total, whole, blocks = 0, hashlib.sha256(), bytearray()
    while block := file.read(BLOCK_BYTES):
        total += len(block)
        whole.update(block)
        blocks += hashlib.sha256(block).digest()[:DIGEST_BYTES]
    return total, whole.hexdigest(), bytes(blocks)


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """Equal values are equal bytes; NaN and infinity raise ValueError."""
    return (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises ShardError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ShardError(f"{where} is not a whole JSON object (cut short or damaged); delete it and {AGAIN}")
    return value


def parse_receipt(data: bytes, where: str, tar: str) -> Receipt:
    """The receipt of the shard `tar`. Raises ShardError."""
    value = parse_json(data, where)
    try:
        receipt = _parse(value)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError, RecursionError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ShardError(
            f"{where} is not a valid receipt ({' '.join(told.split())[:200]}); delete it and {AGAIN}"
        ) from None
    if receipt.shard != tar:
        raise ShardError(f"{where} is the receipt of {receipt.shard}; put the right one back or {AGAIN}")
    return receipt


def load_receipt(path: Path) -> tuple[Receipt, str]:
    """A shard's receipt and its file's sha256; `path` is the receipt's or its tar's. Raises ShardError."""
    path = path.with_suffix(".json")
    data = Folder(path.parent).read(path.name)
    if data is None:
        raise ShardError(f"{path} is missing; copy it again or {AGAIN}")
    return parse_receipt(data, str(path), path.with_suffix(".tar").name), hashlib.sha256(data).hexdigest()


def read_receipt(path: Path) -> Receipt:
    return load_receipt(path)[0]


def finished(tar: Path) -> Receipt | None:
    """The shard's receipt if the shard was written to its end and its tar has the receipt's size, else None.

    Reads no payload: a tar of the right size with other bytes passes (see `shards.verify.faults`).
    """
    try:
        receipt = read_receipt(tar)
        return receipt if not receipt.examples or tar.stat().st_size == receipt.bytes else None
    except (ShardError, OSError):
        return None


def _parse(value: dict[str, Any]) -> Receipt:
    """Checks what reading relies on; whatever is amiss raises one of the errors that load_receipt expects."""
    if value["format"] != FORMAT:
        raise ValueError(f"format is {value['format']}; this program reads {FORMAT}")
    total = int(value["bytes"])
    receipt = Receipt(
        shard=str(value["shard"]),
        bytes=total,
        sha256=str(value["sha256"]),
        blocks=bytes.fromhex("".join(value["blocks"])),
        examples=tuple(_parse_entry(item, total) for item in value["examples"]),
        statistics={role: value["statistics"][role] for role in ROLES},
        fingerprint=dict(value["fingerprint"]),
        made_of=str(value["made_of"]),
    )
    if total < 0 or len(receipt.blocks) != DIGEST_BYTES * -(-total // BLOCK_BYTES):
        raise ValueError(f"{len(value['blocks'])} block digests for {total} bytes")
    if not SHARD.fullmatch(receipt.shard):
        raise ValueError(f"shard {receipt.shard[:60]!r}")
    if len({entry.id for entry in receipt.examples}) < len(receipt.examples):
        raise ValueError("an id comes twice")
    _check_statistics(receipt)
    return receipt


def _check_statistics(receipt: Receipt) -> None:
    """Raises one of the errors that parse_receipt expects."""
    dims = {entry.shapes["stems.npy"][-1] for entry in receipt.examples}
    for role, name in zip(ROLES, ARRAYS[:2], strict=True):
        share = receipt.statistics[role]
        frames = sum(math.prod(entry.shapes[name][:2]) for entry in receipt.examples)
        rows = [share["sum"], share["sum_sq"]]
        if share["frames"] != frames or not all(is_row(row, frames * MOST**2) for row in rows):
            raise ValueError(f"its statistics of {role} are not of {frames} frames")
        dims |= {len(row) for row in rows}
    if len(dims) != 1:
        raise ValueError(f"latents and statistics of different dims {sorted(dims)}")


def is_row(value: Any, most: float) -> bool:
    """Whether it is a list of floats of no more than `most`, either way."""
    return isinstance(value, list) and all(type(item) is float and abs(item) <= most for item in value)


def _parse_entry(value: dict[str, Any], total: int) -> Entry:
    places = {name: value["members"][name] for name in MEMBERS}
    members = {name: (int(offset), int(size)) for name, (offset, size) in places.items()}
    shapes = {name: tuple(int(size) for size in value["shapes"][name]) for name in ARRAYS}
    streams, audio = (tuple(map(str, value[key])) for key in ("streams", "audio"))
    entry = Entry(str(value["id"]), members, dict(value["sources"]), shapes, streams, audio)
    if not ID.fullmatch(entry.id):
        raise ValueError(f"id {entry.id!r} does not match {ID.pattern}")
    for name, (offset, size) in members.items():
        if offset < 0 or size < 0 or offset + size > total:
            raise ValueError(f"{entry.id}.{name} lies outside the tar")
    for name, shape in shapes.items():
        right = len(shape) == (2 if name == "levels.npy" else 3) and shape[0] >= 0 and min(shape[1:]) > 0
        if not right or npy_size(shape) != members[name][1]:
            raise ValueError(f"{entry.id}.{name} has {members[name][1]} bytes, which is not shape {shape} in float16")
    stems, mixes = shapes["stems.npy"], shapes["mixes.npy"]
    if stems[1:] != mixes[1:] or not 1 <= stems[0] <= stems[0] + mixes[0] == shapes["levels.npy"][0]:
        raise ValueError(f"{entry.id} has stems, mixes and levels of shapes {', '.join(map(str, shapes.values()))}")
    if {len(streams), len(audio)} != {shapes["levels.npy"][0]}:
        raise ValueError(f"{entry.id} has {len(streams)} streams and levels of shape {shapes['levels.npy']}")
    return entry
