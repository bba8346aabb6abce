"""Examples from their plan: read the stems, sum the mixes, measure, encode. Runs in a worker, alone.

Audio is walked through in stretches, twice: once for the mixes' loudness, once to encode. So memory holds one stem at
a time, the latents, and what waits for a call of the codec, whatever the number of stems and their length.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shards
from prep.codecs import Codec, CodecIdentity, load_codec
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.encode import Stream, check_rows, encode
from prep.errors import PrepError
from prep.job import Built, Bundle, Clock, Job
from prep.kept import AT_ONCE, Flac, flac_at, flac_name, new_files, read_pieces, rounded
from prep.measure import measure
from prep.pieces import Pieces, ahead, mixed
from prep.plan import PlanRow
from prep.reuse import Measured, audio_digests, read_measured, read_streams, stream_digests
from prep.scan import Target
from prep.spool import Audio, Spool


def build_examples(
    bundle: Bundle,
    root: Path | None,
    scratch: Path,
    config: PrepConfig,
    target: Target,
    identity: CodecIdentity,
    device: Device = CPU,
) -> list[Built]:
    """Every stream that is not known already is measured and encoded. `scratch`: a folder for what memory cannot hold.

    Raises PrepError when a source has changed since the scan, or is needed and there is no `root`, when the codec is
    not the one of this `identity` any more, and where the device has too little memory.
    """
    clock, begun = Clock(), list[_Begun]()
    codec = _codec(config.codec, device)
    if codec.identity != identity:  # a training run may write its checkpoint anew
        raise PrepError(f"codec {config.codec} has changed since this run began. Run the same command again.")

    def pieces() -> Pieces[Stream]:
        for job in bundle.jobs:
            try:
                begun.append((yield from _pieces(job, codec, root, scratch, config, target, device, clock)))
            except Exception as error:
                if len(bundle.jobs) > 1:
                    error.add_note(f"while reading {job.id}")
                raise

    # whatever happens, nothing is being read or written any more
    with closing(pieces()) as every, closing(ahead(every, clock.skip) if device.ahead else every) as made:
        encode(codec, made, clock.lap, device)
    seconds = [clock.seconds, *({} for _ in begun[1:])]
    return [_built(each, config, target, identity, spent) for each, spent in zip(begun, seconds, strict=True)]


@dataclass(frozen=True)
class _Begun:
    """An example whose pieces are handed out: `latents` (streams, frames, dim) are full when the codec is through."""

    job: Job
    latents: NDArray[np.float16]
    streams: Sequence[Stream]
    measured: Mapping[int, Measured]
    read: int  # stems
    flacs: Sequence[Flac]
    told: Sequence[str]


def _pieces(
    job: Job,
    codec: Codec,
    root: Path | None,
    scratch: Path,
    config: PrepConfig,
    target: Target,
    device: Device,
    clock: Clock,
) -> Generator[tuple[Stream, Audio], None, _Begun]:
    """Of the streams that have to be encoded, what the codec is given."""
    row, hop = job.row, codec.identity.hop
    latents = np.zeros((len(job.members), math.ceil(row.samples / hop), codec.identity.dim), np.float16)
    copied = read_streams(job.known)
    for number, stream in copied.items():
        latents[number] = stream.latents
    job = replace(job, known={number: job.known[number] for number in copied})  # without what was damaged
    measured = {number: stream.measured for number, stream in copied.items()}
    measured |= read_measured({number: job.heard[number] for number in job.missing if number in job.heard})
    clock.lap("copy")
    job, told = _sound(job, measured, root)
    stretch, flacs = device.stretch_frames * hop, list[Flac]()
    streams = {number: Stream(latents[number]) for number in job.missing}
    again = {number: job.kept[number] for number in job.reread}
    for number, audio in read_pieces(again, target.channels, row.samples, stretch, clock.lap):
        yield streams[number], audio
    with Spool(target.channels, row.samples, scratch) as spool:
        read, gains_db = measure(job, measured, root, config, target, spool, clock)
        pieces = _mixed(job, measured, gains_db, spool, stretch, clock)
        paths = new_files(scratch, row.id, [i for i in job.mixed if i not in job.kept]) if job.keep else {}
        if config.keep_audio:
            pieces = rounded(pieces, paths, target.rate, row.samples, clock.lap)
        with closing(pieces):
            for number, audio in pieces:
                if number in streams:
                    yield streams[number], audio
    if job.keep:
        flacs = _flacs(job, paths)
        clock.lap("keep")
    return _Begun(job, latents, list(streams.values()), measured, read, flacs, told)


def _built(
    begun: _Begun, config: PrepConfig, target: Target, identity: CodecIdentity, seconds: dict[str, float]
) -> Built:
    """Raises PrepError where the codec gave what is no latent."""
    job, row = begun.job, begun.job.row
    if not np.isfinite(begun.latents).all():
        raise PrepError(f"{row.id}: the codec gave latents that are not finite. Certify the codec.")
    length_s, ran = row.samples / target.rate, sum(stream.ran for stream in begun.streams)
    return Built(
        example=_example(job, begun.latents, begun.measured, config, target, identity),
        stem_s=begun.read * length_s,
        stream_s=len(begun.streams) * length_s,
        encoded=len(begun.streams),
        seconds=seconds,
        flacs=begun.flacs,
        told=begun.told,
        ran_frames=ran,
        padding_frames=ran - sum(len(stream.latents) for stream in begun.streams),
    )


def _sound(job: Job, measured: Mapping[int, Measured], root: Path | None) -> tuple[Job, list[str]]:
    """Without heard streams whose measures could not be read, and without kept audio that is damaged; what to tell.

    Raises PrepError where only sources could replace that, and there is no `root`."""
    job = replace(job, heard={number: place for number, place in job.heard.items() if number in measured})
    used = job.kept if job.keep else job.reread
    damaged = [number for number in used if not job.kept[number].is_sound()]
    told = [f"{job.kept[number]} is damaged" for number in damaged]
    job = replace(job, kept={number: flac for number, flac in job.kept.items() if number not in damaged})
    if job.needed and root is None:
        raise PrepError(f"{job.id}: {(told or ['not all of its audio is kept'])[0]}. Name the corpus: --root FOLDER.")
    again = "so sources are read. Delete that tar, and `prep build` keeps its audio again."
    return job, [f"{each}, {again}" for each in told]


def _mixed(
    job: Job, measured: Mapping[int, Measured], gains_db: list[float], spool: Spool, stretch: int, clock: Clock
) -> Pieces[int]:
    """All streams side by side, so that each stem is read once, or some after others where files are written."""
    wanted = [(number, (job.members[number], measured[number].gain_db)) for number in job.mixed]
    step = AT_ONCE if job.keep else max(1, len(wanted))
    for start in range(0, len(wanted), step):
        yield from mixed(dict(wanted[start : start + step]), gains_db, spool, stretch, clock.lap)


def _flacs(job: Job, new: Mapping[int, Path]) -> list[Flac]:
    """Of all streams. What is kept may be another example's, of the same audio."""
    flacs = {**job.kept, **{number: flac_at(path) for number, path in new.items()}}
    return [replace(flacs[number], name=flac_name(job.id, number)) for number in sorted(flacs)]


def _example(
    job: Job,
    latents: NDArray[np.float16],
    measured: Mapping[int, Measured],
    config: PrepConfig,
    target: Target,
    identity: CodecIdentity,
) -> shards.Example:
    row, n = job.row, len(job.row.stems)
    streams = [measured[number] for number in range(len(latents))]
    audio = audio_digests(row, config, target)
    return shards.Example(
        id=row.id,
        meta=_meta(job, streams, latents.shape[1]),
        stems=latents[:n],
        mixes=latents[n:],
        levels=np.stack([stream.levels for stream in streams]),
        sources=sources_of(row),
        streams=stream_digests(audio, identity),
        audio=audio,
    )


def sources_of(row: PlanRow) -> dict[str, str]:
    """Each stem's digest, or digests where it is a sum."""
    return {name: "+".join(digests) for name, digests in zip(row.stems, row.digests, strict=True)}


def _meta(job: Job, streams: Sequence[Measured], frames: int) -> dict[str, Any]:
    """The example's json: every key always there, with one type."""
    row = job.row
    return {
        "id": row.id,
        "original": row.original,
        "augmentation": row.augmentation,
        "split": row.split,
        "corpus": row.corpus,
        "licence": row.licence,
        "n_stems": len(row.stems),
        "n_mixes": len(row.mixes),
        "frames": frames,
        "samples": row.samples,
        "levels_frames": len(streams[0].levels),
        "stems": list(row.stems),
        "programs": list(row.programs),
        "instruments": list(row.instruments),
        "members": [list(members) for members in job.members],
        "gains_db": [float(stream.gain_db) for stream in streams],
        "loudness_lufs": [float(stream.loudness_lufs) for stream in streams],
    }


@lru_cache(maxsize=2)
def _codec(spec: str, device: Device) -> Codec:
    device.pin()
    with device.memory():
        codec = load_codec(spec, device.name)
    if device.batch_streams > 1:
        check_rows(codec, device)
    return codec
