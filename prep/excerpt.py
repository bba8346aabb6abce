"""Something to hear from a dataset: one multitrack's mix and target, and the target decoded from its latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf
import torch
from numpy.typing import NDArray

import shards
from prep.codecs import Codec, load_codec
from prep.config import Audio
from prep.errors import PrepError, Reject
from prep.instruments import CLASSES
from prep.scan import Target, load_stem
from prep.stages.mixing import mix_audio


@dataclass(frozen=True)
class Excerpt:
    """What was written, and of what."""

    id: str
    target: str
    members: tuple[str, ...]
    paths: tuple[Path, ...]


def write_excerpt(data: Path, root: Path, out: Path, instrument: str, split: str = "test") -> Excerpt:
    """mix.wav, target.wav and target-decoded.wav in `out`: the first multitrack of `split` that has the instrument.

    The mix is the fullest stored one without the target, with the gains that were stored. Raises PrepError where there
    is no such pair, and where the sources are not below `root`.
    """
    dataset = shards.open(data)
    record, target, stream = _choose(dataset, instrument, split)
    meta = record.meta
    codec = _same_codec(dataset.codec, dataset.index["config"]["codec"])
    wanted = Target(codec.identity.sample_rate, codec.identity.channels, Audio(**dataset.index["config"]["audio"]))
    stems = [_read(root / path, meta["samples"], wanted) for path in _paths(data, record)]
    members = meta["members"][stream]
    gain = np.float32(10 ** (meta["gains_db"][stream] / 20)) if len(members) > 1 else np.float32(1)
    latents = torch.from_numpy(np.array(record["stems"][target], np.float32))
    with torch.inference_mode():
        decoded = codec.decode(latents[None])[0, :, : meta["samples"]].numpy()
    audio = {
        "mix": mix_audio(stems, meta["gains_db"], members) * gain,
        "target": mix_audio(stems, meta["gains_db"], [target]),
        "target-decoded": decoded,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in audio.items():
        sf.write(out / f"{name}.wav", samples.T, wanted.rate, subtype="FLOAT")
    names = tuple(meta["stems"][i] for i in members)
    return Excerpt(record.id, meta["stems"][target], names, tuple(out / f"{name}.wav" for name in audio))


def _paths(data: Path, record: shards.Record) -> list[str]:
    """Where the record's stems lie below the root, in stem order."""
    plan = pd.read_parquet(data / "plan.parquet", columns=["id", "stems", "paths"])
    for row in plan[plan["id"] == record.id].to_dict("records"):
        paths = dict(zip(row["stems"], row["paths"], strict=True))
        if set(paths) >= set(record.meta["stems"]):
            return [paths[name] for name in record.meta["stems"]]
    raise PrepError(
        f"plan.parquet of {data} is of a later, unfinished build without {record.id}. Run that build again."
    )


def _choose(dataset: shards.Dataset, instrument: str, split: str) -> tuple[shards.Record, int, int]:
    """A record, its target stem and the stream (a mix, or a stem where there is no mix) that holds most of the rest."""
    if instrument not in CLASSES:
        raise PrepError(f"--instrument {instrument!r} is no class; there are: {', '.join(CLASSES)}.")
    if split not in dataset.splits:
        raise PrepError(f"the dataset has no {split} split; it has: {', '.join(dataset.splits)}.")
    records = dataset.split(split)
    for i in range(len(records)):
        meta = records[i].meta
        for target, name in enumerate(meta["instruments"]):
            without = [s for s, members in enumerate(meta["members"]) if target not in members]
            if name == instrument and without:
                return records[i], target, max(without, key=lambda s: len(meta["members"][s]))
    found = sorted({name for i in range(len(records)) for name in records[i].meta["instruments"]})
    raise PrepError(f"no multitrack of {split} has a {instrument} stem; there are: {', '.join(found)}.")


def _same_codec(stored: dict[str, Any], spec: str) -> Codec:
    codec = load_codec(spec)
    if codec.identity.weights != stored["weights"]:
        raise PrepError(f"the dataset was made by other weights of codec {stored['name']}. Run its build again.")
    return codec


def _read(path: Path, samples: int, target: Target) -> NDArray[np.float32]:
    loaded = load_stem(path, target)
    if isinstance(loaded, Reject):
        raise PrepError(f"{path}: {loaded.reason}. Name the corpus that the dataset was built from: --root.")
    return np.pad(loaded[0], ((0, 0), (0, samples - loaded[0].shape[1])))
