"""What a codec does, measured, beside what it claims. `certify` is a pure function of the codec and some audio.

Frames are counted at the lengths where counting goes wrong; whole, chunked, streamed and batched runs are compared;
other futures are put behind the same past; changes are traced through encoder and decoder to see how far they reach.
A codec with a number over its limit is refused. Of one that does not claim to be causal, what follows from causality
is told and not required.

Two runs' latents differ by their worst frame: the root mean square over its numbers, in units of all latents' root mean
square, as if these had unit variance; tokens in units of 1. Audio differs by the largest difference; full scale is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prep.codecs import Codec, CodecIdentity, State, decode_batch, encode_batch
from prep.codecs.protocol import frames_of
from prep.probes import Reach, decode_reach, encode_reach, heard_delay, noise, probe_samples

VERSION = 1  # raise it when what is measured, or how, changes
# by dtype: float32 rounds otherwise in other shapes, bfloat16 in its third digit
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
CHUNKS = (5, 64)  # frames a step, beside uneven ones
UNEVEN = (1, 4, 2, 7, 3)
DELAY_SLACK = 64  # samples: so well can a delay be heard


@dataclass(frozen=True)
class Measurement:
    """`value` is None where nothing could be measured, `limit` where nothing is claimed. What has no unit hangs on
    rounding, and so on the hardware."""

    name: str
    value: float | None
    limit: float | None
    unit: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.limit is None or self.value is None or self.value <= self.limit  # of NaN: no

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.0f}" if self.unit else f"{self.value:.1e}"
        limit = "" if self.limit is None else f"at most {self.limit:g}"
        verdict = "FAILED" if not self.ok else "told" if self.limit is None or self.value is None else "ok"
        return f"{self.name:<24}{value:>9} {self.unit:<9}{limit:<16}{verdict:<8}{self.detail}".rstrip()

    def to_json(self) -> dict[str, Any]:
        value = int(self.value) if self.unit and self.value is not None else None
        return {"name": self.name, "value": value, "limit": self.limit, "unit": self.unit, "ok": self.ok}


@dataclass(frozen=True)
class Certificate:
    identity: CodecIdentity
    measurements: tuple[Measurement, ...]

    @property
    def failed(self) -> tuple[Measurement, ...]:
        return tuple(each for each in self.measurements if not each.ok)

    def lines(self) -> list[str]:
        """For a person."""
        i = self.identity
        what = f"tokens of {i.dim} codebooks of {i.codebook_size}" if i.codebook_size else f"{i.dim} numbers"
        claim = f"causal, {i.delay_samples} samples of delay beyond the frame" if i.causal else "NOT causal"
        head = f"{i.name} {i.digest}: {i.sample_rate} Hz, {i.channels} channels, {i.frame_rate:.2f} frames a second"
        last = f"refused: {len(self.failed)} of {len(self.measurements)}" if self.failed else "certified"
        return [f"{head} of {what}, {i.dtype}; says it is {claim}", *(f"  {each}" for each in self.measurements), last]

    def to_json(self) -> dict[str, Any]:
        """The same on one machine; what rounding decides stands there as a verdict only."""
        measured = [each.to_json() for each in self.measurements]
        return {"version": VERSION, "ok": not self.failed, "measurements": measured}


def certify(codec: Codec, audio: Sequence[Tensor]) -> Certificate:
    """`audio`: one or more (channels, samples) float32, of whatever lengths, on which runs are compared."""
    with torch.inference_mode():
        measured = [*_frames(codec), _sound(codec, audio)]
        if all(each.ok for each in measured):  # the others take that for granted
            measured += [*_in_steps(codec, audio), *_batched(codec, audio), *_futures(codec)]
            measured += [*_reaches(codec), _delay(codec), _again(codec)]
    return Certificate(codec.identity, tuple(measured))


def _frames(codec: Codec) -> Iterator[Measurement]:
    """Lengths around the multiples of the hop, and how many of them give another number of frames, or samples back."""
    i = codec.identity
    lengths = sorted({max(0, k * i.hop + d) for k in range(5) for d in (-1, 0, 1)})
    wrong, back = [], []
    for samples in lengths:
        frames = frames_of(samples, i.hop)
        found, latents = _tried(codec.encode, noise(i, samples, "lengths")[None])
        if latents is None or latents.shape != (1, frames, i.dim):
            wrong.append(f"{samples} samples gave {found}, not {(1, frames, i.dim)}")
            continue
        found, audio = _tried(codec.decode, latents)
        if audio is None or audio.shape != (1, i.channels, frames * i.hop):
            back.append(f"{frames} frames gave {found}, not {(1, i.channels, frames * i.hop)}")
    yield Measurement("frames of a length", len(wrong), 0, "lengths", wrong[0] if wrong else f"of {len(lengths)}")
    yield Measurement("samples of the frames", len(back), 0, "lengths", back[0] if back else f"of {len(lengths)}")


def _tried(run: Callable[[Tensor], Tensor], given: Tensor) -> tuple[str, Tensor | None]:
    """The result, and its shape or the error in words."""
    try:
        result = run(given)
    except Exception as error:  # whatever a codec raises, it is the codec's fault
        return f"{type(error).__name__} ({error})", None
    return str(tuple(result.shape)), result


def _sound(codec: Codec, audio: Sequence[Tensor]) -> Measurement:
    """Numbers that no reader of latents can use, of the audio and of what makes encoders stumble."""
    i = codec.identity
    samples = 3 * i.hop - 1
    square = torch.sign(noise(i, samples, "square"))
    extremes = [torch.zeros_like(square), torch.ones_like(square), square, torch.full_like(square, 1e-38)]
    bad = 0
    for clip in [*audio, *extremes]:
        latents = codec.encode(clip[None])
        bad += int(_unusable(latents, i).sum())
        if not bad:
            bad += int((~torch.isfinite(codec.decode(latents))).sum())
    what = f"NaN, infinity, or no token of 0 ... {i.codebook_size - 1}" if i.codebook_size else "NaN or infinity"
    return Measurement("unusable values", bad, 0, "values", what)


def _unusable(latents: Tensor, identity: CodecIdentity) -> Tensor:
    if not identity.codebook_size:
        return ~torch.isfinite(latents)
    if latents.is_floating_point():
        return torch.ones_like(latents, dtype=torch.bool)
    return (latents < 0) | (latents >= identity.codebook_size)


def _in_steps(codec: Codec, audio: Sequence[Tensor]) -> Iterator[Measurement]:
    """Whole = chunked = streamed."""
    i, unit = codec.identity, _unit(codec, audio)
    apart: dict[str, float] = {}
    for clip in audio:
        padded = F.pad(clip, (0, -clip.shape[1] % i.hop))[None]
        whole = codec.encode(padded)
        decoded = codec.decode(whole)
        for name, sizes in _step_sizes(whole.shape[1]):
            latents = _stepped(codec.encode_step, codec.encode_state(1), padded, [n * i.hop for n in sizes], 2)
            sound = _stepped(codec.decode_step, codec.decode_state(1), whole, sizes, 1)
            for what, value in (("encode", _latents_apart(latents, whole, unit)), ("decode", _apart(sound, decoded))):
                apart[f"{what}: {name}"] = max(apart.get(f"{what}: {name}", 0.0), value)
    limit = _tolerance(i) if i.causal else None
    for name in ("encode: chunked", "encode: streamed", "decode: chunked", "decode: streamed"):
        yield Measurement(name, apart[name], limit)


def _step_sizes(frames: int) -> Iterator[tuple[str, list[int]]]:
    """Frames of each step, in several ways that come to `frames`."""
    for name, sizes in [("streamed", (1,)), ("chunked", UNEVEN), *(("chunked", (n,)) for n in CHUNKS)]:
        steps = list(islice(cycle(sizes), frames))
        ends = [min(end, frames) for end in accumulate(steps)]
        yield name, [n for n in (b - a for a, b in pairwise([0, *ends])) if n]


def _stepped(
    step: Callable[[Tensor, State], tuple[Tensor, State]], state: State, whole: Tensor, sizes: list[int], axis: int
) -> Tensor:
    """What the steps give, end to end; time is axis 2 of audio and axis 1 of latents."""
    out = []
    for part in whole.split(sizes, axis):
        result, state = step(part, state)
        out.append(result)
    return torch.cat(out, 3 - axis)


def _batched(codec: Codec, audio: Sequence[Tensor]) -> Iterator[Measurement]:
    """Alone = in a batch with clips of other lengths, and with a louder one of the same."""
    i, limit = codec.identity, _tolerance(codec.identity)
    audio = [*audio, noise(i, 5 * i.hop + 1, "short"), 3 * noise(i, audio[0].shape[1], "loud")]
    unit, latents = _unit(codec, audio), [codec.encode(clip[None]) for clip in audio]
    together = encode_batch(codec, audio)
    apart = [_latents_apart(one[None], each, unit) for one, each in zip(together, latents, strict=True)]
    yield Measurement("encode: batched", max(apart), limit)
    sound = decode_batch(codec, [each[0] for each in latents])
    apart = [_apart(one[None], codec.decode(each)) for one, each in zip(sound, latents, strict=True)]
    yield Measurement("decode: batched", max(apart), limit)


def _tolerance(identity: CodecIdentity) -> float:
    return TOLERANCES.get(identity.dtype, TOLERANCES["float32"])


def _unit(codec: Codec, audio: Sequence[Tensor]) -> float:
    """All latents' root mean square; 1 for tokens."""
    if codec.identity.codebook_size:
        return 1.0
    return float(torch.cat([codec.encode(clip[None]).flatten() for clip in audio]).square().mean().sqrt()) or 1.0


def _latents_apart(a: Tensor, b: Tensor, unit: float) -> float:
    """(1, frames, dim) each: the worst frame's."""
    if a.shape != b.shape:
        return math.inf
    value = float((a - b).float().square().mean(2).sqrt().max()) / unit
    return value if math.isfinite(value) else math.inf


def _apart(a: Tensor, b: Tensor) -> float:
    """Of audio, the largest difference; full scale is 1."""
    value = float((a - b).abs().max()) if a.shape == b.shape else math.inf
    return value if math.isfinite(value) else math.inf


def _futures(codec: Codec) -> Iterator[Measurement]:
    """How many values of the past are others, bit for bit, when the future is."""
    i = codec.identity
    samples = probe_samples(i)
    past, other = noise(i, samples, "past")[None], noise(i, samples, "future")[None]
    latents, limit = codec.encode(past), 0.0 if i.causal else None
    futures = [10 * other, torch.zeros_like(past), torch.sign(other)]
    yield Measurement("encode: past changed", _changed(codec.encode, past, futures, 2, i.hop), limit, "values")
    altered = [latents.flip(1), torch.zeros_like(latents), codec.encode(10 * other)]
    yield Measurement("decode: past changed", _changed(codec.decode, latents, altered, 1, i.hop), limit, "values")
    if not getattr(codec, "convolutional", False):
        return

    def encode(audio: Tensor) -> Tensor:  # the steps take NaN
        return codec.encode_step(audio, codec.encode_state(1))[0]

    def decode(latents: Tensor) -> Tensor:
        return codec.decode_step(latents, codec.decode_state(1))[0]

    nan = [torch.full_like(past, math.nan)]
    yield Measurement("encode: past after nan", _changed(encode, past, nan, 2, i.hop), limit, "values")
    if i.codebook_size:
        return
    nan = [torch.full_like(latents, math.nan)]
    yield Measurement("decode: past after nan", _changed(decode, latents, nan, 1, i.hop), limit, "values")


def _changed(run: Callable[[Tensor], Tensor], past: Tensor, futures: list[Tensor], axis: int, hop: int) -> int:
    """Values that `run` gives for the frames before the change; time is axis 2 of audio and axis 1 of latents."""
    before, count = run(past), 0
    frames = past.shape[axis] // (hop if axis == 2 else 1)
    for cut in (1, frames // 2, frames - 1):
        samples, n = (cut * hop, cut) if axis == 2 else (cut, cut * hop)
        for future in futures:
            mixed = torch.cat(
                [past.narrow(axis, 0, samples), future.narrow(axis, samples, past.shape[axis] - samples)], axis
            )
            count += int((run(mixed).narrow(3 - axis, 0, n) != before.narrow(3 - axis, 0, n)).sum())
    return count


def _reaches(codec: Codec) -> Iterator[Measurement]:
    i = codec.identity
    for what, (back, ahead) in (("encode", encode_reach(codec)), ("decode", decode_reach(codec))):
        yield Measurement(f"{what}: reaches back", back.samples, None, "samples", _reach_text(back, i))
        limit = 0.0 if i.causal else None
        yield Measurement(f"{what}: reaches ahead", ahead.samples, limit, "samples", _reach_text(ahead, i))


def _reach_text(reach: Reach, identity: CodecIdentity) -> str:
    more = " or more: all of the probe" if reach.whole else ""
    return f"{reach.samples / identity.sample_rate:.3f} s{more}" if reach.samples > 0 else ""


def _delay(codec: Codec) -> Measurement:
    i, heard = codec.identity, heard_delay(codec)
    what = "decoded audio does not resemble its input" if heard is None else f"said to be {i.delay_samples}"
    return Measurement("delay heard", heard, i.delay_samples + DELAY_SLACK, "samples", what)


def _again(codec: Codec) -> Measurement:
    """Values that are others when the same is done again, from the same state, which a step must not change."""
    i = codec.identity
    audio = noise(i, 8 * i.hop, "again")[None]
    early, late = audio.split(4 * i.hop, 2)
    latents = codec.encode(audio)
    pairs = [(codec.encode(audio), latents), (codec.decode(latents), codec.decode(latents))]
    _, state = codec.encode_step(early, codec.encode_state(1))
    pairs.append((codec.encode_step(late, state)[0], codec.encode_step(late, state)[0]))
    _, state = codec.decode_step(latents[:, :4], codec.decode_state(1))
    pairs.append((codec.decode_step(latents[:, 4:], state)[0], codec.decode_step(latents[:, 4:], state)[0]))
    return Measurement("changed when repeated", sum(int((a != b).sum()) for a, b in pairs), 0, "values")
