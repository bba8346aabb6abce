"""The hardware and software that a shard was written on."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy
import soundfile
import soxr
import torch

from prep.codecs.causal import ROUNDING
from prep.device import Device
from shards import Receipt


def fingerprint() -> dict[str, str]:
    """The hardware and software on which equal inputs give equal bytes."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "causal": f"rounding {ROUNDING}",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "soxr": soxr.__version__,
        "python_stretch": version("python-stretch"),
        "libsndfile": soundfile.__libsndfile_version__,
        "python": platform.python_version(),
    }


@cache
def _cpu() -> str:
    try:
        return cpu_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor()  # elsewhere than on Linux


def cpu_of(info: str) -> str:
    """Maker, family and model, and what vectors it computes with. By these, libraries choose how they sum: on two
    processors that both have AVX-512, MKL may do other things."""
    lines = (line.partition(":") for line in info.split("\n\n")[0].splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    flags = found.get("flags", found.get("Features", "")).split()
    vectors = sorted(
        flag for flag in flags if flag in ("fma", "bf16") or flag.startswith(("avx", "amx", "asimd", "sve"))
    )
    return " ".join([*(found[name] for name in names if name in found), *vectors])


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
