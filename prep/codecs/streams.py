"""Whole = chunked: a whole run in steps from the first state, or in windows that hold all that their frames hear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prep.codecs.protocol import Codec, CodecIdentity, State, check_audio, check_latents

STRETCH_FRAMES = 64  # a step or window of `encode` and `decode`, whose memory does not grow with the audio

Run = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class Span:
    """How many frames before and behind its own a frame needs at most, in windows that begin at multiples of `grid`;
    `ahead` counts from the end of the grid's cell."""

    back: int
    ahead: int
    grid: int = 1

    def outlived(self, frames: int) -> int:
        """How many of the first `frames` of a window none of those to come needs."""
        return max(0, frames - self.back) // self.grid * self.grid


@dataclass
class Sliding:
    """A stream through `run` in windows: each frame comes out when all that it needs is there.

    Time is axis 2 of audio, `hop` samples a frame, and axis 1 of latents; `axis` is that of what goes in.
    """

    run: Run
    span: Span
    axis: int
    hop: int
    done: int = 0  # frames at the beginning of `held` that came out
    held: Tensor | None = None

    def push(self, part: Tensor, last: bool = False) -> list[Tensor]:
        """Whole frames in; what is ready out, which may be nothing. The end has to be told."""
        held = part if self.held is None else torch.cat([self.held, part], self.axis)
        unit, out_unit = (self.hop, 1) if self.axis == 2 else (1, self.hop)
        frames, grid = held.shape[self.axis] // unit, self.span.grid
        ready = frames if last else max(self.done, (frames - self.span.ahead) // grid * grid)
        fresh = ready - self.done
        out = [self.run(held).narrow(3 - self.axis, self.done * out_unit, fresh * out_unit)] if fresh else []
        over = self.span.outlived(ready)
        self.held, self.done = held.narrow(self.axis, over * unit, (frames - over) * unit).clone(), ready - over
        return out


class EncodeStream:
    """One stream through a codec's encoder, in stretches; end to end the latents are those of the whole stream.

    A causal codec answers each stretch at once, any other one when it has heard what lies ahead.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.sliding = codec.encoding() if isinstance(codec, WindowedEncoder) else None
        self.state: State = () if self.sliding else codec.encode_state(1)

    @property
    def place(self) -> tuple[object, ...]:
        """Streams of one codec whose places are equal can be pushed together."""
        if self.sliding:
            return self.sliding.done, None if self.sliding.held is None else self.sliding.held.shape
        return tuple(part.shape if part.ndim else part.item() for part in self.state)

    def push(self, audio: Tensor, last: bool = False) -> list[Tensor]:
        """(B, channels, k * hop) -> latents (B, frames, dim), or none yet. The last stretch has to be told."""
        if self.sliding:
            return self.sliding.push(audio, last)
        latents, state = self.codec.encode_step(audio, self.state)
        # a state may be a view that keeps the whole stretch alive
        self.state = tuple(part.clone() for part in state)
        return [latents]


def push_together(streams: Sequence[EncodeStream], audio: Tensor, last: bool = False) -> list[Tensor]:
    """Streams in equal places, a row of `audio` (B, channels, k * hop) each, as `push` does: latents (B, frames, dim).

    Rows beyond them are nobody's."""
    if len(audio) == 1:
        return streams[0].push(audio, last)
    every = [*streams, *[streams[-1]] * (len(audio) - len(streams))]
    joint = copy(streams[0])
    if joint.sliding:
        held = [each.sliding.held for each in every if each.sliding and each.sliding.held is not None]
        joint.sliding = replace(joint.sliding, held=torch.cat(held) if held else None)
    parts = zip(*(each.state for each in every), strict=True)
    joint.state = tuple(torch.cat(rows) if rows[0].ndim else rows[0] for rows in parts)
    out = joint.push(audio, last)
    for row, stream in enumerate(streams):
        if stream.sliding and joint.sliding and joint.sliding.held is not None:
            stream.sliding = replace(joint.sliding, held=joint.sliding.held[row : row + 1].clone())
        stream.state = tuple(part[row : row + 1].clone() if part.ndim else part for part in joint.state)
    return out


def in_steps(step: Step, state: State, whole: Tensor, axis: int, frames: int, empty: Tensor) -> Tensor:
    """`whole` through `step`, `frames` (of its `axis`) at a time; time is the other axis of what comes out."""
    out = [empty]
    for part in whole.split(frames, axis) if whole.shape[axis] else ():
        result, state = step(part, state)
        out.append(result)
    return torch.cat(out, 3 - axis)


def whole_frames(audio: Tensor, identity: CodecIdentity) -> Tensor:
    """Checked, and the tail padded with zeros. Raises ValueError."""
    check_audio(audio, identity.channels)
    return F.pad(audio, (0, -audio.shape[2] % identity.hop))


def no_latents(audio: Tensor, identity: CodecIdentity) -> Tensor:
    dtype = torch.int64 if identity.codebook_size else torch.float32
    return torch.zeros(len(audio), 0, identity.dim, dtype=dtype, device=audio.device)


def no_audio(latents: Tensor, identity: CodecIdentity) -> Tensor:
    return torch.zeros(len(latents), identity.channels, 0, device=latents.device)


class SteppedEncoder(ABC):
    """Of a causal codec: `encode` is its steps from the first state."""

    identity: CodecIdentity

    def encode(self, audio: Tensor) -> Tensor:
        audio, i = whole_frames(audio, self.identity), self.identity
        state, empty = self.encode_state(len(audio)), no_latents(audio, i)
        return in_steps(self.encode_step, state, audio, 2, STRETCH_FRAMES * i.hop, empty)

    @abstractmethod
    def encode_state(self, batch: int) -> State: ...

    @abstractmethod
    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]: ...


class SteppedDecoder(ABC):
    """`decode` is its steps from the first state."""

    identity: CodecIdentity

    def decode(self, latents: Tensor) -> Tensor:
        i = self.identity
        check_latents(latents, i.dim, i.codebook_size)
        state, empty = self.decode_state(len(latents)), no_audio(latents, i)
        return in_steps(self.decode_step, state, latents, 1, STRETCH_FRAMES, empty)

    @abstractmethod
    def decode_state(self, batch: int) -> State: ...

    @abstractmethod
    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]: ...


class SteppedCodec(SteppedEncoder, SteppedDecoder):
    """A causal codec."""


class WindowedEncoder(ABC):
    """Of a codec that hears the future, but no more of it than `hears` says.

    `encode` goes in windows that overlap as far as is needed. A *step* hears its past and, for want of a future,
    silence: so streamed is not whole, and the certificate tells how far off it is. To encode a long stream exactly,
    take EncodeStream.
    """

    identity: CodecIdentity
    hears: Span  # of the audio, to encode a frame

    @abstractmethod
    def encode_window(self, audio: Tensor) -> Tensor:
        """(B, channels, k * hop), k >= 1 -> (B, k, dim), with nothing before and nothing behind."""

    def encoding(self) -> Sliding:
        return Sliding(self.encode_window, self.hears, 2, self.identity.hop)

    def encode(self, audio: Tensor) -> Tensor:
        audio, i = whole_frames(audio, self.identity), self.identity
        return _slide(self.encoding(), audio, STRETCH_FRAMES * i.hop, no_latents(audio, i))

    def encode_state(self, batch: int) -> State:
        return ()

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        return _past_only(self.encode_window, self.hears, audio, state, 2, self.identity.hop)


class WindowedCodec(WindowedEncoder):
    """... and whose decoder needs what lies ahead as well, but no more of it than `sounds` says."""

    sounds: Span  # of the latents, to decode a frame

    @abstractmethod
    def decode_window(self, latents: Tensor) -> Tensor:
        """(B, k, dim), k >= 1 -> (B, channels, k * hop), with nothing before and nothing behind."""

    def decoding(self) -> Sliding:
        return Sliding(self.decode_window, self.sounds, 1, self.identity.hop)

    def decode(self, latents: Tensor) -> Tensor:
        i = self.identity
        check_latents(latents, i.dim, i.codebook_size)
        return _slide(self.decoding(), latents, STRETCH_FRAMES, no_audio(latents, i))

    def decode_state(self, batch: int) -> State:
        return ()

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        return _past_only(self.decode_window, self.sounds, latents, state, 1, self.identity.hop)


def _slide(sliding: Sliding, whole: Tensor, size: int, empty: Tensor) -> Tensor:
    parts = whole.split(size, sliding.axis) if whole.shape[sliding.axis] else ()
    out = [each for k, part in enumerate(parts) for each in sliding.push(part, k == len(parts) - 1)]
    return torch.cat([empty, *out], 3 - sliding.axis)


def _past_only(run: Run, span: Span, part: Tensor, state: State, axis: int, hop: int) -> tuple[Tensor, State]:
    """The state is what went in before, as far back as it is heard; () at the beginning."""
    unit, out_unit = (hop, 1) if axis == 2 else (1, hop)
    seen = torch.cat([*state, part], axis)
    frames, fresh = seen.shape[axis] // unit, part.shape[axis] // unit
    out = run(seen).narrow(3 - axis, (frames - fresh) * out_unit, fresh * out_unit)
    over = span.outlived(frames)
    return out, (seen.narrow(axis, over * unit, (frames - over) * unit),)


def encoder_span(network: nn.Module) -> Span:
    """Of a stack of convolutions, whose modules stand in the order in which they run (residual branches in line)."""
    hop, left, right = 1, 0, 0  # output o hears o * hop - left ... o * hop + right
    for conv in (each for each in network.modules() if isinstance(each, nn.Conv1d)):
        pad, extent = int(conv.padding[0]), (conv.kernel_size[0] - 1) * conv.dilation[0]
        hop, left, right = hop * conv.stride[0], left + pad * hop, right + (extent - pad) * hop
    return Span(-(-left // hop), max(0, -(-(right + 1 - hop) // hop)))


def decoder_span(network: nn.Module) -> Span:
    """... with transposed convolutions in it."""
    hop, left, right = 1, 0, 0  # frame t sounds in t * hop - left ... t * hop + right
    for conv in (each for each in network.modules() if isinstance(each, (nn.Conv1d, nn.ConvTranspose1d))):
        pad, extent = int(conv.padding[0]), (conv.kernel_size[0] - 1) * conv.dilation[0]
        if isinstance(conv, nn.Conv1d):
            left, right = left + extent - pad, right + pad
        else:
            stride = conv.stride[0]
            hop, left, right = hop * stride, left * stride + pad, right * stride + extent - pad
    return Span(right // hop, (hop - 1 + left) // hop)
