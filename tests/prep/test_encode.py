"""Streams side by side, stretch by stretch, come out as each one does whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from prep.codecs import CausalCodec, Codec, CodecIdentity, State, load_codec
from prep.codecs.streams import STRETCH_FRAMES, Span, SteppedEncoder, WindowedEncoder
from prep.device import Device
from prep.encode import ROUNDED, Calls, Stream, check_rows, encode, powers_of_two
from prep.errors import PrepError
from tests.prep.made import small_codec

HOP = 8


class Ahead(WindowedEncoder):
    """A frame is the mean of its own samples, and of those of the three frames that follow."""

    hears = Span(0, 3)
    identity = CodecIdentity("ahead", "", "", "float32", 800, 1, HOP, 2, causal=False, delay_samples=0)

    def encode_window(self, audio: Tensor) -> Tensor:
        own = audio[:, 0].unflatten(1, (-1, HOP)).mean(2)
        padded = torch.nn.functional.pad(own, (0, 3))
        return torch.stack([own, padded[:, 1:-2] + padded[:, 2:-1] + padded[:, 3:]], dim=2)


@pytest.mark.parametrize("codec", [Ahead(), small_codec()])
def test_side_by_side_as_whole(codec: Codec) -> None:
    i, rng = codec.identity, np.random.default_rng(0)
    samples = 2 * STRETCH_FRAMES * i.hop + i.hop + 3
    streams = 0.1 * rng.standard_normal((3, i.channels, samples)).astype(np.float32)
    starts = range(0, samples, STRETCH_FRAMES * i.hop)
    pieces = [(n, streams[n, :, s : s + STRETCH_FRAMES * i.hop]) for s in starts for n in range(3)]
    frames = 2 * STRETCH_FRAMES + 2
    latents = np.full((3, frames, i.dim), np.nan, np.float16)
    wanted = {n: Stream(latents[n]) for n in (0, 2)}
    encode(codec, [(wanted[n], audio) for n, audio in pieces if n in wanted], lambda _: None)
    with torch.inference_mode():
        whole = codec.encode(torch.from_numpy(streams)).numpy()
    assert np.isnan(latents[1]).all()  # was not wanted
    np.testing.assert_allclose(latents[[0, 2]], whole[[0, 2]], atol=1e-3, rtol=1e-3)


TOGETHER = Device("cpu", 32, 4)


def one_after_the_other(lengths: Sequence[int]) -> list[Stream]:
    codec, streams = small_codec(), list[Stream]()
    hop = codec.identity.hop

    def pieces() -> Iterator[tuple[Stream, np.ndarray]]:
        for k, frames in enumerate(lengths):
            audio = np.random.default_rng(k).uniform(-0.1, 0.1, (1, frames * hop)).astype(np.float32)
            streams.append(Stream(np.full((frames, codec.identity.dim), np.nan, np.float16)))
            for start in range(0, frames, 8):
                part = audio[:, start * hop : (start + 8) * hop]
                yield streams[-1], np.broadcast_to(part, (2, part.shape[1]))

    encode(codec, pieces(), lambda _: None, TOGETHER)
    return streams


def test_what_waits_for_others_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are few streams, they wait for those of other examples, until they take too much memory; which
    changes no bit, and costs padding."""
    waited, most, run = list[int](), list[int](), Calls._run
    monkeypatch.setattr("prep.encode.WAITING_CALLS", 0)

    def watched(self: Calls, limit: int) -> None:
        waited.append(self._bytes)
        run(self, limit)
        assert self._bytes <= limit

    monkeypatch.setattr(Calls, "_run", watched)
    lengths, found = (33, 40, 37, 17, 29, 40) * 3, []
    piece = 8 * 4096 * 4  # bytes, of which the two channels have one half each
    for limit in (1 << 30, 6 * piece):
        waited.clear()
        monkeypatch.setattr("prep.encode.WAITING_BYTES", limit)
        found.append(one_after_the_other(lengths))
        most.append(max(waited))
    assert most[0] > most[1] and most[1] <= 7 * piece
    for free, bound in zip(*found, strict=True):
        np.testing.assert_array_equal(free.latents, bound.latents)
    ran = [sum(stream.ran for stream in streams) for streams in found]
    assert sum(lengths) <= ran[0] < ran[1]


class Clocked(SteppedEncoder):
    """Its state has a position and a time, which are common to a batch; a frame tells both."""

    identity = CodecIdentity("clocked", "", "", "float32", 800, 1, HOP, 2, causal=True, delay_samples=0)

    def encode_state(self, batch: int) -> State:
        return torch.zeros(batch, 1), torch.zeros(())

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        own, (_, time) = audio[:, 0, ::HOP], state
        times = time + torch.arange(own.shape[1]) / 64
        return torch.stack([own, times.expand_as(own)], 2), (own[:, -1:], time + own.shape[1] / 64)


def in_turn(codec: Codec, lengths: Sequence[int], device: Device, calls: Calls | None = None) -> list[Stream]:
    """Streams of so many frames, one after the other."""
    calls, i = calls or Calls(codec, device), codec.identity
    streams = [Stream(np.full((frames, i.dim), np.nan, np.float16)) for frames in lengths]
    for stream in streams:
        audio = np.random.default_rng(0).uniform(-1, 1, (1, len(stream.latents) * i.hop)).astype(np.float32)
        for start in range(0, audio.shape[1], device.stretch_frames * i.hop):
            # as the stretches of a mix are: arrays of their own
            calls.add(stream, audio[:, start : start + device.stretch_frames * i.hop].copy())
    return streams


def test_times_that_differ_by_less_than_one_share_no_call() -> None:
    device, lengths = Device("cpu", 32, 2), (35, 3, 20, 7, 19, 1)
    calls = Calls(Clocked(), device)
    streams = in_turn(Clocked(), lengths, device, calls)
    calls.end()
    for stream in streams:
        np.testing.assert_allclose(stream.latents[:, 1], np.arange(len(stream.latents)) / 64, atol=1e-3)


def test_a_piece_that_waits_holds_no_more_than_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """... not the tail of the stream that it was cut from, of which the rest is done."""
    monkeypatch.setattr("prep.encode.ROUNDED", 0)
    device = Device("cpu", 256, 2)
    calls = Calls(Clocked(), device)
    # tails that meet for their first piece, and then wait for one of the same length in the same place
    streams = in_turn(Clocked(), [128 * (1 + k // 2) + 64 + 1 + k % 2 for k in range(24)], device, calls)
    roots = dict[int, np.ndarray]()
    for piece in (piece for stream in streams for piece in stream.waiting):
        root = piece.audio
        while isinstance(root.base, np.ndarray):
            root = root.base
        roots[id(root)] = root
    assert len(roots) == 24 and sum(root.nbytes for root in roots.values()) == calls._bytes
    calls.end()
    assert all(np.isfinite(stream.latents).all() for stream in streams)


def test_large_calls_may_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else each would be filled up with silence."""
    monkeypatch.setattr("prep.encode.WAITING_BYTES", 10 * 64 * HOP * 4)
    device = Device("cpu", 32 * 64, 32)
    calls = Calls(Clocked(), device)
    streams = in_turn(Clocked(), [64 * 4] * 64, device, calls)
    calls.end()
    assert [stream.ran for stream in streams] == [64 * 4] * 64


@pytest.mark.parametrize(
    ("frames", "most", "rounded", "sizes"),
    [
        (13, 16, 1, [8, 4, 1]),
        (13, 16, 0, [8, 4, 1]),
        (13, 16, 2, [8, 4, 2]),
        (13, 16, 4, [16]),
        (9, 16, 7, [8, 4]),
        (11, 12, 100, [8, 8]),  # no piece has more frames than a stretch
        (1, 16, 16, [16]),
    ],
)
def test_tails_in_powers_of_two(frames: int, most: int, rounded: int, sizes: list[int]) -> None:
    assert powers_of_two(frames, most, rounded) == sizes


@pytest.mark.parametrize("total", [63, 64, 200, 1000, 5000, 100_000])
def test_no_stream_is_rounded_up_by_a_sixtieth(total: int) -> None:
    for tail in range(1, min(total, 256)):
        sizes = powers_of_two(tail, 256, int(total * ROUNDED))
        assert 0 <= sum(sizes) - tail <= total / 60 and sizes == sorted(sizes, reverse=True) and sizes[0] <= 256


class Mingling(CausalCodec):
    """A row hangs on its place, as with libraries that sum otherwise there."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, state = super().encode_step(audio, state)
        return latents + 1e-6 * torch.arange(len(latents))[:, None, None], state


class Overhearing(CausalCodec):
    """... or on the others."""

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        latents, state = super().encode_step(audio, state)
        return latents + 1e-6 * latents.mean(0), state


def test_no_memory_to_try_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: np.ndarray) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("prep.encode.torch.from_numpy", none)
    with pytest.raises(PrepError, match="lower --batch-frames, which is 32"):
        check_rows(Clocked(), TOGETHER)


@pytest.mark.parametrize("kind", [Mingling, Overhearing])
def test_rows_that_hang_on_each_other_are_refused(codec: str, kind: type[CausalCodec]) -> None:
    plain = load_codec(codec)
    mingling = kind(plain.config)
    mingling.load_state_dict(plain.state_dict())
    with pytest.raises(PrepError, match=r"other numbers beside other streams.*--batch-streams 1"):
        check_rows(mingling.freeze(), TOGETHER)
    check_rows(plain, TOGETHER)
