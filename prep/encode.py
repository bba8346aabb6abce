"""Streams to latents, stretch by stretch: the codec carries its state along.

Where a call of the codec takes several streams (`Device.batch_streams`), their pieces wait until there are as many of
one length. What a call looks like hangs on the stream alone: pieces of a stretch, then of ever smaller powers of two,
always in a batch of that size, with silence in the rows that are left over in the end. So a stream's numbers do not
hang on which others are encoded, if only rows of a batch do not hang on each other, and `check_rows` holds the device
to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prep.codecs import Codec
from prep.codecs.protocol import frames_of
from prep.codecs.streams import EncodeStream, push_together
from prep.device import CPU, Device
from prep.errors import PrepError
from prep.pieces import Lap
from prep.spool import Audio

# Audio that waits for as much of other streams, in bytes, or in what so many calls take, where that is more. Examples
# of fewer streams than a call takes need it: of eight stereo streams at 44.1 kHz, the first is three minutes of each.
WAITING_BYTES = 1 << 29
WAITING_CALLS = 8
# A stream's last piece may be longer than the stream by this share of the stream, so that small pieces are few.
ROUNDED = 1 / 64


class Stream:
    """One on its way through the codec. `latents`: (frames, dim), to be filled in. Frames so far: `given`, `done`, and
    those that the codec `ran` for it, in rows of its calls that were nobody's, too."""

    def __init__(self, latents: NDArray[np.float16]) -> None:
        self.latents = latents
        self.waiting: deque[Waiting] = deque()
        self.given = self.done = self.ran = 0

    def take(self, latents: NDArray[Any]) -> None:
        """The next frames; those beyond the stream's end are of what its last piece was rounded up with."""
        stop = min(self.done + len(latents), len(self.latents))
        with np.errstate(over="ignore"):  # infinity is looked for when all is done
            self.latents[self.done : stop] = latents[: stop - self.done]
        self.done = stop


class Waiting:
    """A piece of a stream that a call of the codec will take, with silence up to `frames`. Channels that are alike are
    one."""

    def __init__(self, audio: Audio, frames: int, last: bool) -> None:
        self.audio, self.frames, self.last = audio, frames, last


def encode(codec: Codec, pieces: Iterable[tuple[Stream, Audio]], lap: Lap, device: Device = CPU) -> None:
    """Fills in the streams' latents. Pieces are of the device's `stretch_frames`, but for a stream's last one.

    What a codec that hears the future gives for a piece comes when it has heard that. Raises PrepError where the
    device, on which the codec is, has too little memory."""
    calls = Calls(codec, device)
    for stream, audio in pieces:
        calls.add(stream, audio)
        lap("encode")
    calls.end()
    lap("encode")


class Calls:
    """Of the codec: streams whose next pieces are alike wait for each other, and no longer than they have to."""

    def __init__(self, codec: Codec, device: Device) -> None:
        self._codec, self._identity, self._device = codec, codec.identity, device
        self._encoders: dict[Stream, EncodeStream] = {}  # of what is under way
        self._alike: dict[tuple[object, ...], list[Stream]] = {}  # whose next pieces a call can take together
        self._full: deque[list[Stream]] = deque()  # ... and which are as many as it takes
        self._bytes = 0
        frame_bytes = self._identity.channels * self._identity.hop * np.dtype(np.float32).itemsize
        self._most_bytes = max(WAITING_BYTES, WAITING_CALLS * device.batch_frames * frame_bytes)

    def add(self, stream: Stream, audio: Audio) -> None:
        idle = not stream.waiting
        if not stream.given:
            with self._device.memory():
                self._encoders[stream] = EncodeStream(self._codec)
        for piece in self._cut(stream, audio):
            stream.waiting.append(piece)
            self._bytes += piece.audio.nbytes
        if idle:
            self._queue(stream)
        self._run(self._most_bytes)

    def end(self) -> None:
        self._run(0)

    def _run(self, most: int) -> None:
        """What is full, and then what is not, until at most so many bytes wait. Long pieces come first: those after
        them may meet shorter ones."""
        while self._full or self._bytes > most:
            longest = None if self._full else max(self._alike, key=lambda alike: (alike[0], len(self._alike[alike])))
            self._call(self._full.popleft() if longest is None else self._alike.pop(longest))

    def _queue(self, stream: Stream) -> None:
        if stream.waiting:
            piece = stream.waiting[0]
            alike = (piece.frames, piece.last, *self._encoders[stream].place)
            self._alike.setdefault(alike, []).append(stream)
            if len(self._alike[alike]) == self._device.batch_streams:
                self._full.append(self._alike.pop(alike))

    def _call(self, streams: list[Stream]) -> None:
        pieces, i = [stream.waiting.popleft() for stream in streams], self._identity
        frames, rows = pieces[0].frames, self._device.batch_streams
        audio = np.zeros((rows, i.channels, frames * i.hop), np.float32)
        for row, piece in enumerate(pieces):
            audio[row, :, : piece.audio.shape[1]] = piece.audio
            self._bytes -= piece.audio.nbytes
        with self._device.memory(), torch.inference_mode():
            there = torch.from_numpy(audio).to(self._device.name)
            found = push_together([self._encoders[stream] for stream in streams], there, pieces[0].last)
            latents = [out.cpu().numpy() for out in found]
        streams[0].ran += (rows - len(streams)) * frames
        for row, stream in enumerate(streams):
            stream.ran += frames
            for out in latents:
                stream.take(out[row])
            if stream.done == len(stream.latents):
                del self._encoders[stream]  # its state may be large
            self._queue(stream)

    def _cut(self, stream: Stream, audio: Audio) -> Iterator[Waiting]:
        """To whole frames, and, what is no whole stretch, to powers of two, of which all streams have some alike."""
        i, stretch, total = self._identity, self._device.stretch_frames, len(stream.latents)
        frames = frames_of(audio.shape[1], i.hop)
        stream.given += frames
        ends = stream.given == total
        sizes = [frames]
        if self._device.batch_streams > 1 and frames < stretch:
            sizes = powers_of_two(frames, stretch, int(total * ROUNDED) if i.causal else 1)
        start, distinct = 0, audio[:1] if audio.strides[0] == 0 else audio
        for size in sizes:
            stop = start + size
            last = ends and stop >= frames and not i.causal  # what is causal need not know
            piece = distinct[:, start * i.hop : stop * i.hop]
            # a copy, or the smallest piece of a tail would keep all of it alive
            yield Waiting(piece.copy() if len(sizes) > 1 else piece, size, last)
            start = stop


def powers_of_two(frames: int, most: int, rounded: int) -> list[int]:
    """Descending, and none over `most`; they come to `frames`, rounded up by fewer than `rounded`."""
    unit = 1 << max(0, min(rounded, most).bit_length() - 1)
    left, size, sizes = -(-frames // unit) * unit, 1 << (most.bit_length() - 1), []
    while left:
        if size <= left:
            sizes.append(size)
            left -= size
        else:
            size //= 2
    return sizes


def check_rows(codec: Codec, device: Device) -> None:
    """Raises PrepError where a row of a batch hangs, in any bit, on its place or on what the others are.

    On made noise, in pieces as they occur."""
    i, rows = codec.identity, device.batch_streams
    sizes = [device.stretch_frames, *powers_of_two(2 * device.stretch_frames - 1, device.stretch_frames, 1)]
    noise = 0.1 * np.random.default_rng(0).standard_normal((rows, i.channels, sum(sizes) * i.hop), np.float32)
    alone = noise.copy()
    alone[1:] = 0
    found, turned, first = (_in_pieces(codec, device, audio, sizes) for audio in (noise, np.roll(noise, 1, 0), alone))
    if not torch.equal(turned, found.roll(1, 0)) or not torch.equal(first[0], found[0]):
        raise PrepError(
            f"--device {device.name}: with {i.name} its libraries give a stream other numbers beside other streams, so "
            "that equal builds would differ. Run again with --batch-streams 1."
        )


def _in_pieces(codec: Codec, device: Device, audio: Audio, sizes: list[int]) -> torch.Tensor:
    """As `Calls` has it done: (rows, channels, samples) -> (rows, frames, dim)."""
    found, start, hop = list[torch.Tensor](), 0, codec.identity.hop
    with device.memory(), torch.inference_mode():
        streams = [EncodeStream(codec) for _ in audio]
        for k, size in enumerate(sizes):
            stop = start + size * hop
            there = torch.from_numpy(audio[:, :, start:stop]).to(device.name)
            found += [out.cpu() for out in push_together(streams, there, k == len(sizes) - 1)]
            start = stop
    return torch.cat(found, 1)
