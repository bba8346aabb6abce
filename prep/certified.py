"""No build without a certificate: of the codec on made audio before the scan, and on a piece of the corpus after it."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import shards
from prep.audio import expand, read_audio, resample
from prep.certify import VERSION, Certificate, Measurement, certify
from prep.codecs import Codec, CodecIdentity, load_codec
from prep.engines import local
from prep.errors import PrepError, Reject
from prep.plan import read_header
from prep.probes import made_audio
from prep.stem import read_stem
from shards.verify import load_index

if TYPE_CHECKING:
    from prep.draft import Draft  # which admits a codec before it scans

# of the first stems of the first multitrack, from its middle on: of several lengths, since they share a batch
PIECES_S = (6.5, 1.5)
LISTENED_S = 20.0  # of each file that is named
# float16, in which latents are stored, has every integer up to here
MAX_CODEBOOK = 2049


def admit(codec: Codec, out: Path) -> None:
    """Raises PrepError for a codec that cannot be used, unless it was certified for OUT before."""
    if not any(_is_of(header, codec.identity) for header in _headers(out)):
        accepted(one_threaded(codec, made_audio(codec.identity)))


def certificate_of(draft: Draft) -> dict[str, Any]:
    """As dataset.json holds it; measured on a piece of the corpus, unless that was done for this generation."""
    for header in _headers(draft.out):
        if header["generation"] == draft.generation and _is_of(header, draft.identity):
            return dict(header["certificate"])
    return accepted(one_threaded(load_codec(draft.config.codec), _piece(draft))).to_json()


def _headers(out: Path) -> Iterator[dict[str, Any]]:
    """Of OUT's complete generations, and of what is being built."""
    for path in sorted(out.glob("generations/*/dataset.json")):
        with suppress(shards.ShardError):
            yield load_index(path.parent)
    with suppress(PrepError):
        yield read_header(out / "plan.parquet")[0]


def _is_of(header: dict[str, Any], identity: CodecIdentity) -> bool:
    """Whether it holds a certificate of this codec, as it would be measured today."""
    certificate = header.get("certificate", {})
    return header["codec"] == identity.to_json() and certificate.get("version") == VERSION and certificate["ok"]


def _piece(draft: Draft) -> list[Tensor]:
    """Of the corpus; where only kept audio is at hand, made audio."""
    row, pieces = draft.plan.rows[0], list[Tensor]()
    if draft.root is None:
        return made_audio(draft.identity)
    for i, seconds in enumerate(PIECES_S[: len(row.stems)]):
        audio = read_stem(row, i, draft.root, draft.target)
        start = max(0, audio.shape[1] - round(seconds * draft.target.rate)) // 2
        pieces.append(torch.from_numpy(audio[:, start : start + round(seconds * draft.target.rate)].copy()))
    return pieces


def one_threaded(codec: Codec, audio: Sequence[Tensor]) -> Certificate:
    """With as many threads as a build's workers have."""
    [certificate] = local(partial(certify, codec), [audio], workers=1)
    return certificate


def accepted(certificate: Certificate) -> Certificate:
    """Raises PrepError where it failed."""
    i = certificate.identity
    if certificate.failed:
        faults = "; ".join(" ".join(str(each).split()) for each in certificate.failed)
        raise PrepError(
            f"codec {i.name} {i.digest} does not do what it says ({faults}). All that was measured: prep certify CODEC."
        )
    if i.codebook_size > MAX_CODEBOOK:
        raise PrepError(
            f"codec {i.name} has codebooks of {i.codebook_size}: shards hold float16, which tells {MAX_CODEBOOK} apart."
        )
    return certificate


def certify_here(spec: str, files: Sequence[Path] = ()) -> Certificate:
    """Of the codec so named, on the beginnings of these files or on made audio; and held to what another process gets.

    Raises PrepError for a codec or a file that cannot be had.
    """
    codec = load_codec(spec)
    clips = [_listened(path, codec.identity) for path in files] or made_audio(codec.identity)
    certificate = one_threaded(codec, clips)
    if certificate.failed:
        return certificate
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        there = pool.submit(_digest, spec, clips[0]).result()
    [here] = local(partial(_digest, spec), [clips[0]], workers=1)
    other = Measurement("another process differs", here != there, 0, "times")
    return replace(certificate, measurements=(*certificate.measurements, other))


def _digest(spec: str, clip: Tensor) -> str:
    """Of what the codec makes of it, there and back."""
    codec = load_codec(spec)
    with torch.inference_mode():
        latents = codec.encode(clip[None])
        both = latents.numpy().tobytes() + codec.decode(latents).numpy().tobytes()
    return hashlib.sha256(both).hexdigest()


def _listened(path: Path, identity: CodecIdentity) -> Tensor:
    """The beginning of a sound file, as the codec takes it. Raises PrepError."""
    audio, rate = read if not isinstance(read := read_audio(path), Reject) else (read, 0)
    audio = audio if isinstance(audio, Reject) else expand(audio, identity.channels)
    if isinstance(audio, Reject):
        raise PrepError(f"--audio {path}: {audio.reason} ({audio.detail}). Name another sound file.")
    beginning = np.ascontiguousarray(audio[:, : round(LISTENED_S * rate)])
    return torch.from_numpy(resample(beginning, rate, identity.sample_rate).copy())
