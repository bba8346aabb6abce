"""The hardware and software that a shard was written on."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import numpy as np
import scipy
import soundfile
import soxr
import torch

from prep.device import Device
from shards import Receipt


def fingerprint() -> dict[str, str]:
    """The hardware and software on which equal inputs give equal bytes."""
    return {
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "soxr": soxr.__version__,
        "python_stretch": version("python-stretch"),
        "libsndfile": soundfile.__libsndfile_version__,
        "python": platform.python_version(),
    }


def strangers(receipts: Iterable[Receipt], device: Device) -> list[str]:
    """A line for each other fingerprint among them: which keys, what they were, what they are here, on `device`."""
    here, found = fingerprint() | device.fingerprint, Counter[str]()
    for receipt in receipts:
        there = receipt.fingerprint
        differ = [key for key in (here | there) if here.get(key) != there.get(key)]
        told = ", ".join(f"{key} was {_named(there, key)}, is {_named(here, key)}" for key in differ)
        found.update([told] if told else [])
    return [f"{count} shards taken over were written elsewhere: {told}" for told, count in sorted(found.items())]


def _named(fingerprint: Mapping[str, str], key: str) -> str:
    return fingerprint.get(key, "cpu" if key == "device" else "unknown")
