"""Something to hear from a dataset: one multitrack's mix and target, and the target decoded from its latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

import shards
from prep.draft import target_of
from prep.errors import PrepError
from prep.example import sources_of
from prep.instruments import CLASSES
from prep.plan import PlanRow, read_plan
from prep.recorded import recorded_codec, recorded_config
from prep.stages.mixing import mix_audio
from prep.stem import read_stem


@dataclass(frozen=True)
class Excerpt:
    """What was written, and of what."""

    id: str
    target: str
    members: tuple[str, ...]
    paths: tuple[Path, ...]


def write_excerpt(
    data: Path, root: Path, out: Path, instrument: str, split: str = "test", id: str | None = None
) -> Excerpt:
    """mix.wav, target.wav and target-decoded.wav in `out`: of example `id`, or of the first of `split` that has the
    instrument.

    The mix is the fullest stored one without the target, with the gains that were stored; a rendition is made again
    from its files and its record. Raises PrepError where there is no such pair, and where the sources are not below
    `root`.
    """
    dataset = shards.open(data)
    record, target, stream = _choose(dataset, instrument, split, id)
    meta, codec = record.meta, recorded_codec(dataset)
    wanted = target_of(codec.identity, recorded_config(dataset))
    row = _planned(data, record)
    gains, members = meta["gains_db"], meta["members"][stream]
    audio = {i: read_stem(row, i, root, wanted) for i in {target, *members}}
    latents = torch.from_numpy(np.array(record["stems"][target], np.float32))
    with torch.inference_mode():
        decoded = codec.decode(latents[None])[0, :, : meta["samples"]].numpy()
    written = {
        "mix": mix_audio(audio, gains, members) * np.float32(10 ** (gains[stream] / 20) if len(members) > 1 else 1),
        "target": mix_audio(audio, gains, [target]),
        "target-decoded": decoded,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in written.items():
        sf.write(out / f"{name}.wav", samples.T, wanted.rate, subtype="FLOAT")
    names = tuple(meta["stems"][i] for i in members)
    return Excerpt(record.id, meta["stems"][target], names, tuple(out / f"{name}.wav" for name in written))


def _planned(data: Path, record: shards.Record) -> PlanRow:
    """The plan's row that the record was built from."""
    for row in read_plan(data / "plan.parquet"):
        if row.id == record.id and _is_of(record, row):
            return row
    raise PrepError(
        f"plan.parquet of {data} is of a later, unfinished build without {record.id}. Run that build again."
    )


def _is_of(record: shards.Record, row: PlanRow) -> bool:
    """Whether the record is what this row plans: of the same files, changed alike, mixed alike."""
    meta, n = record.meta, record.meta["n_stems"]
    planned = (row.augmentation, row.samples, [list(members) for members in row.mixes], sources_of(row))
    return planned == (meta["augmentation"], meta["samples"], meta["members"][n:], record.sources)


def _choose(dataset: shards.Dataset, instrument: str, split: str, id: str | None) -> tuple[shards.Record, int, int]:
    """A record, its target stem and the stream (a mix, or a stem where there is no mix) that holds most of the rest."""
    if instrument not in CLASSES:
        raise PrepError(f"--instrument {instrument!r} is no class; there are: {', '.join(CLASSES)}.")
    if split not in dataset.splits:
        raise PrepError(f"the dataset has no {split} split; it has: {', '.join(dataset.splits)}.")
    records = [record for record in dataset if record.id == id] if id else list(dataset.split(split))
    if not records:
        raise PrepError(f"--id {id} is no example of the dataset; the first is {dataset.ids[0]}.")
    for record in records:
        meta = record.meta
        for target, name in enumerate(meta["instruments"]):
            without = [s for s, members in enumerate(meta["members"]) if target not in members]
            if name == instrument and without:
                return record, target, max(without, key=lambda s: len(meta["members"][s]))
    found = sorted({name for record in records for name in record.meta["instruments"]})
    raise PrepError(f"no example of {id or split} has a {instrument} stem; there are: {', '.join(found)}.")
