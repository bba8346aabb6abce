"""What is made ahead of the encoder, in a thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from prep.pieces import AHEAD, Pieces, ahead


def numbered(count: int, made: list[int], closed: list[bool]) -> Pieces[int]:
    try:
        for number in range(count):
            made.append(number)
            yield number, np.zeros((2, 1), np.float32)
        if count == 5:
            raise RuntimeError("no more")
    finally:
        closed.append(True)


def idle() -> None:
    """In place of a clock's."""


def test_pieces_are_made_ahead_and_no_further() -> None:
    made, closed = list[int](), list[bool]()
    pieces = ahead(numbered(20, made, closed), idle)
    for number, (found, _) in enumerate(pieces):
        assert found == number and number < len(made) <= number + 1 + AHEAD
    assert made == list(range(20)) and closed == [True]


def test_what_goes_wrong_ahead_is_told_in_its_place() -> None:
    closed = list[bool]()
    pieces = ahead(numbered(5, [], closed), idle)
    assert [next(pieces)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="no more"):
        next(pieces)
    assert closed == [True]


def test_left_early_the_thread_has_ended() -> None:
    made, closed = list[int](), list[bool]()
    inner = numbered(1000, made, closed)
    pieces = ahead(inner, idle)
    next(pieces)
    pieces.close()
    assert len(made) <= 1 + AHEAD and not [t for t in threading.enumerate() if t.name.startswith("ahead")]
    inner.close()
    assert closed == [True]


def test_no_wait_is_counted_at_the_end() -> None:
    """What the thread does after the last piece, such as the files of kept audio, it counts itself."""
    told = list[tuple[str, int]]()
    made, closed = list[int](), list[bool]()

    def skip() -> None:
        told.append((threading.current_thread().name.partition("_")[0], len(closed)))

    assert len(list(ahead(numbered(3, made, closed), skip))) == 3
    assert told[-1] == ("MainThread", 1)
