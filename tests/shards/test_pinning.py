import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from shards import Loader
from shards.pinning import pinned, pinner

Pair = namedtuple("Pair", ["mix", "name"])


@dataclass(frozen=True)
class Block:
    """Stands in for a tensor: there need be no GPU where this is tested."""

    value: int
    thread: str = ""

    def pin_memory(self) -> "Block":
        return Block(self.value, threading.current_thread().name)


class Cuda:
    def __init__(self, available: bool) -> None:
        self.available, self.devices = available, {"MainThread": 3}

    def is_available(self) -> bool:
        return self.available

    def current_device(self) -> int:
        return self.devices.get(threading.current_thread().name, 0)

    def set_device(self, device: int) -> None:
        self.devices[threading.current_thread().name] = device


def use(monkeypatch: pytest.MonkeyPatch, cuda: Cuda | None) -> None:
    """As if torch were imported with this CUDA, or (None) not imported."""
    if cuda:
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)


def batches(pin: bool | None) -> list[Any]:
    return list(Loader(4, 2, lambda i, rng: i, lambda i: {"x": Block(7)}, 5, rank=0, world=1, pin=pin, epochs=1))


def test_blocks_are_pinned_wherever_they_are() -> None:
    there = Block(1, "MainThread")
    batch = {"a": [Block(1), 2], "b": (Block(1), {"c": Block(1)}), "d": Pair(Block(1), "x"), "e": None}
    found = pinned(batch)
    assert found == {"a": [there, 2], "b": (there, {"c": there}), "d": Pair(there, "x"), "e": None}
    assert type(found["d"]) is Pair and pinned("text") == "text" and pinned(Block(1)) == there


@pytest.mark.parametrize(("pin", "available", "wanted"), [
    (None, True, True), (None, False, False), (None, None, False),
    (True, True, True), (True, False, True), (True, None, True),
    (False, True, False), (False, False, False), (False, None, False),
])  # fmt: skip
def test_when_batches_are_pinned(
    pin: bool | None, available: bool | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, None if available is None else Cuda(available))
    assert pinner(pin)(Block(1)) == Block(1, "MainThread" if wanted else "")


def test_the_thread_pins_with_the_callers_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(True)
    use(monkeypatch, cuda)
    assert batches(None) == [{"x": Block(7, "loader")}] * 2
    assert cuda.devices == {"MainThread": 3, "loader": 3}


def test_nothing_is_pinned_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Cuda(False))
    assert batches(None) == [{"x": Block(7)}] * 2


def test_what_pinning_raises_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(block: Block) -> Block:
        raise RuntimeError("out of memory that can be pinned")

    monkeypatch.setattr(Block, "pin_memory", refuse)
    with pytest.raises(RuntimeError, match="can be pinned"):
        batches(True)
