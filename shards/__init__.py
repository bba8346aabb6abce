"""The dataset on disk: shards, receipts and index, a reader and a loader. Knows no music and no models."""

from shards.errors import ShardError
from shards.generations import current, set_current
from shards.index import shard_names, shard_of, write_index
from shards.loader import Loader
from shards.mixture import Mixture
from shards.order import Order, Shuffle, permute
from shards.reader import Dataset, Moments, Record, open
from shards.receipt import Receipt, finished, read_receipt
from shards.verify import faults
from shards.windows import Windows
from shards.writer import Example, write_shard

__all__ = [
    "Dataset",
    "Example",
    "Loader",
    "Mixture",
    "Moments",
    "Order",
    "Receipt",
    "Record",
    "ShardError",
    "Shuffle",
    "Windows",
    "current",
    "faults",
    "finished",
    "open",
    "permute",
    "read_receipt",
    "set_current",
    "shard_names",
    "shard_of",
    "write_index",
    "write_shard",
]
