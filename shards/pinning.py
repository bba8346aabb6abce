"""Batches in memory that a GPU copies from by itself. Knows torch only where the caller has imported it."""

import sys
from collections.abc import Callable
from typing import Any


def pinner(pin: bool | None) -> Callable[[Any], Any]:
    """What the loader's thread does with a batch: `pinned` where `pin` is True, or None and torch has a CUDA GPU.

    To be called in the thread that trains, which knows its GPU: a thread begins with GPU 0, on every rank.
    """
    torch = sys.modules.get("torch")
    cuda = torch.cuda if torch is not None and torch.cuda.is_available() else None
    if pin is False or (pin is None and cuda is None):
        return lambda batch: batch
    device = cuda.current_device() if cuda else None

    def pin_there(batch: Any) -> Any:
        if cuda and cuda.current_device() != device:
            cuda.set_device(device)
        return pinned(batch)

    return pin_there


def pinned(batch: Any) -> Any:
    """`batch` with `pin_memory()` of whatever has it, also within tuples, lists and dicts; the rest as it is."""
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, dict):
        return {key: pinned(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(pinned, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(pinned, batch))
    return batch
