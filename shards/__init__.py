"""The dataset on disk: shards, receipts and index, a reader and a loader. Knows no music and no models."""

from shards.damage import Fault
from shards.errors import ShardError
from shards.generations import current, history, roll_back, set_current
from shards.index import shard_names, shard_of, write_index
from shards.loader import Loader
from shards.mixture import Mixture
from shards.order import Order, Shuffle
from shards.reader import Dataset, Moments, open
from shards.receipt import Receipt, finished, read_receipt
from shards.record import Member, Record
from shards.verify import faults, verify
from shards.windows import Windows
from shards.writer import Example, write_shard

__all__ = [
    "Dataset",
    "Example",
    "Fault",
    "Loader",
    "Member",
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
    "history",
    "open",
    "read_receipt",
    "roll_back",
    "set_current",
    "shard_names",
    "shard_of",
    "verify",
    "write_index",
    "write_shard",
]
