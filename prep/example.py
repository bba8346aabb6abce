"""One example from its plan: read the stems, sum the mixes, measure, encode. Runs in a worker, alone.

Audio is walked through in stretches, twice: once for the mixes' loudness, once to encode. So memory holds one stem at
a time, and the latents, whatever the number of stems and their length.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shards
from prep.choice import gains_by
from prep.codecs import Codec, CodecIdentity, load_codec
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.encode import Pieces, ahead, encode, mixed
from prep.errors import PrepError
from prep.job import Built, Clock, Job
from prep.kept import Flac, flac_at, flac_name, new_files, read_pieces, rounded
from prep.plan import PlanRow
from prep.reuse import Measured, audio_digests, read_measured, read_streams, stream_digests
from prep.scan import Target
from prep.spool import Spool
from prep.stages.loudness import SILENCE_LUFS, ceiling_gain_db, noted
from prep.stages.meter import Meter
from prep.stages.mixing import mix_audio, mix_gain_db
from prep.stem import read_stem

# samples of the mixes that are measured at a time
MEASURED_SAMPLES = 1 << 18
# streams whose FLACs are written side by side: each takes some MB, and a process has but a thousand files
WRITTEN_AT_ONCE = 50


def build_example(
    job: Job,
    root: Path | None,
    scratch: Path,
    config: PrepConfig,
    target: Target,
    identity: CodecIdentity,
    device: Device = CPU,
) -> Built:
    """Every stream that is not known already is measured and encoded. `scratch`: a folder for what memory cannot hold.

    Raises PrepError when a source has changed since the scan, or is needed and there is no `root`, when the codec is
    not the one of this `identity` any more, and where the device has too little memory.
    """
    clock, row = Clock(), job.row
    codec = _codec(config.codec, device)
    if codec.identity != identity:  # a training run may write its checkpoint anew
        raise PrepError(f"codec {config.codec} has changed since this run began. Run the same command again.")
    frames = math.ceil(row.samples / codec.identity.hop)
    latents = np.zeros((len(job.members), frames, codec.identity.dim), np.float16)
    streams = read_streams(job.known)
    for number, stream in streams.items():
        latents[number] = stream.latents
    job = replace(job, known={number: job.known[number] for number in streams})  # without what was damaged
    measured = {number: stream.measured for number, stream in streams.items()}
    measured |= read_measured({number: job.heard[number] for number in job.missing if number in job.heard})
    clock.lap("copy")
    job, told = _sound(job, measured, root)
    stretch = device.batch_frames * codec.identity.hop
    again = {number: job.kept[number] for number in job.reread}
    pieces = read_pieces(again, target.channels, row.samples, stretch, clock.lap)
    _encode(codec, pieces, again, latents, device, clock)
    with Spool(target.channels, row.samples, scratch) as spool:
        needed, gains_db = _measure(job, measured, root, config, target, spool, clock)
        pieces = _mixed(job, measured, gains_db, spool, stretch, clock)
        paths = new_files(scratch, row.id, [i for i in job.mixed if i not in job.kept]) if job.keep else {}
        if config.keep_audio:
            pieces = rounded(pieces, paths, target.rate, row.samples, clock.lap)
        _encode(codec, pieces, set(job.missing) - again.keys(), latents, device, clock)
    if not np.isfinite(latents).all():
        raise PrepError(f"{row.id}: the codec gave latents that are not finite. Certify the codec.")
    example = _example(job, latents, measured, config, target, codec.identity)
    flacs = _flacs(job, paths)
    if flacs:
        clock.lap("keep")
    length_s, encoded = row.samples / target.rate, len(job.missing)
    return Built(example, needed * length_s, encoded * length_s, encoded, clock.seconds, flacs, told)


def _encode(
    codec: Codec,
    pieces: Pieces,
    wanted: Collection[int],
    latents: NDArray[np.float16],
    device: Device,
    clock: Clock,
) -> None:
    """And whatever happens, nothing is being read or written any more."""
    with closing(pieces), closing(ahead(pieces, clock.skip) if device.ahead else pieces) as made:
        encode(codec, made, wanted, latents, clock.lap, device)


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


def _measure(
    job: Job,
    measured: dict[int, Measured],
    root: Path | None,
    config: PrepConfig,
    target: Target,
    spool: Spool,
    clock: Clock,
) -> tuple[int, list[float]]:
    """Reads the stems that are needed into the spool, and adds to `measured` what is missing there. How many stems
    were read, and the gains of all."""
    row, n, needed = job.row, len(job.row.stems), job.needed
    unmeasured = [i for i in needed if i not in measured and (i in job.missing or not row.gains_db)]
    if unmeasured and not row.gains_db and config.loudness.policy == "as_recorded":
        needed = unmeasured = list(range(n))  # one gain for all
    if root:
        measured |= _read_stems(row, needed, unmeasured, root, config, target, spool, clock)
    gains_db = [measured[i].gain_db if i in measured else gain for i, gain in enumerate(row.gains_db or n * [0.0])]
    mixes = {number: job.members[number] for number in job.mixed if number >= n and number not in measured}
    measured |= _measure_mixes(row, mixes, gains_db, spool, config, target, clock)
    return len(needed), gains_db


def _mixed(
    job: Job, measured: Mapping[int, Measured], gains_db: list[float], spool: Spool, stretch: int, clock: Clock
) -> Pieces:
    """All streams side by side, so that each stem is read once, or some after others where files are written."""
    wanted = [(number, (job.members[number], measured[number].gain_db)) for number in job.mixed]
    step = WRITTEN_AT_ONCE if job.keep else max(1, len(wanted))
    for start in range(0, len(wanted), step):
        yield from mixed(dict(wanted[start : start + step]), gains_db, spool, stretch, clock.lap)


def _flacs(job: Job, new: Mapping[int, Path]) -> list[Flac]:
    """Of all streams, where they are asked for. What is kept may be another example's, of the same audio."""
    flacs = {**job.kept, **{number: flac_at(path) for number, path in new.items()}} if job.keep else {}
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


def _read_stems(
    row: PlanRow,
    needed: list[int],
    unmeasured: list[int],
    root: Path,
    config: PrepConfig,
    target: Target,
    spool: Spool,
    clock: Clock,
) -> dict[int, Measured]:
    """The stems that are needed, into the spool; measures of the `unmeasured`, with gains where the plan has none."""
    meters = {i: _meter(row, config, target) for i in unmeasured}
    for i in needed:
        audio = read_stem(row, i, root, target, clock.lap)
        if i in meters:
            meters[i].feed(audio)
            clock.lap("measure")
        spool.put(i, audio)
        del audio  # before the next one is read
        clock.lap("read")
    if row.gains_db:
        gains = [row.gains_db[i] for i in meters]
    else:
        measured = list(meters.values())
        gains = gains_by(
            config.loudness, [_lufs(each) for each in measured], [_peak(each, config) for each in measured]
        )
    found = {}
    for i, gain in zip(meters, gains, strict=True):
        total = gain + row.drawn_gains_db[i]
        if row.drawn_gains_db[i] > 0:
            total += ceiling_gain_db(_peak(meters[i], config) * 10 ** (total / 20), config.loudness.ceiling_db)
        found[i] = _after(meters[i], total)
    return found


def _meter(row: PlanRow, config: PrepConfig, target: Target) -> Meter:
    return Meter(target.rate, target.channels, row.samples, true_peak=config.loudness.true_peak)


def _lufs(meter: Meter) -> float:
    return noted(meter.lufs())


def _after(meter: Meter, gain_db: float) -> Measured:
    """What was measured, after a gain."""
    lufs = max(SILENCE_LUFS, _lufs(meter) + gain_db)
    return Measured(gain_db, lufs, meter.levels_db(gain_db).astype(np.float16))


def _peak(meter: Meter, config: PrepConfig) -> float:
    return meter.true_peak if config.loudness.true_peak else meter.peak


def _measure_mixes(
    row: PlanRow,
    mixes: dict[int, tuple[int, ...]],
    gains_db: list[float],
    spool: Spool,
    config: PrepConfig,
    target: Target,
    clock: Clock,
) -> dict[int, Measured]:
    meters = {number: _meter(row, config, target) for number in mixes}
    used = (i for members in mixes.values() for i in members)
    for stems in spool.stretches(used, MEASURED_SAMPLES):
        clock.lap("read")
        for number, members in mixes.items():
            total = mix_audio(stems, gains_db, members)
            clock.lap("mix")
            meters[number].feed(total)
            clock.lap("measure")
    found, loudness = {}, config.loudness
    for number, meter in meters.items():
        offset = row.offsets_db[number - len(row.stems)]
        gain = mix_gain_db(_lufs(meter), _peak(meter, config), loudness.mix_lufs, offset, loudness.ceiling_db)
        found[number] = _after(meter, gain)
    return found


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
        return load_codec(spec, device.name)
