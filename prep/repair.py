"""Re-makes what is faulty in the live generation of a dataset, from the plan and the config that it recorded.

Equal sources give equal bytes, so a shard that is made again is the one that dataset.json lists, and all others stay
untouched. Where only a receipt is damaged it is made again from its tar, without the sources.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

import shards
from prep.build import fingerprint, finish
from prep.codecs import load_codec
from prep.config import PrepConfig
from prep.device import CPU, Device
from prep.draft import Draft
from prep.errors import PrepError
from prep.example import sources_of
from prep.kept_faults import faults_of
from prep.ledger import read_ledger
from prep.plan import Plan, PlanRow, plan_digest, read_header, read_plan
from prep.reuse import Place, stream_digests, take_over
from shards.damage import Fault
from shards.generations import atomic
from shards.receipt import dump_json
from shards.verify import load_index

_AGAIN = "Run the same `prep build` again: it encodes nothing that is there."


class Repair:
    """One run of it. Raises PrepError where what the build recorded does not make the live generation any more."""

    def __init__(
        self,
        out: Path,
        root: Path | None,
        workers: int,
        faults: list[Fault],
        progress: bool = True,
        device: Device = CPU,
    ) -> None:
        self.out, self.root, self.workers, self.progress = out, root, workers, progress
        self.draft = replace(recorded_draft(out, root), device=device)
        self.folder = self.draft.folder
        self.kept = {fault.shard for fault in faults if fault.shard.startswith("audio/")}
        faults = [fault for fault in faults if fault.shard not in self.kept]
        mine = [fault for fault in faults if fault.generation in ("", self.folder.name)]
        self.names = {fault.shard for fault in mine if fault.shard.endswith(".tar")}
        self.others = {fault.shard for fault in mine} - self.names
        self.elsewhere = {f"generations/{fault.generation}" for fault in faults if fault not in mine}
        self.index = None if "dataset.json" in self.others else load_index(self.folder)
        if self.index is None:
            self.names |= self.draft.missing().keys()

    def run(self) -> list[str]:
        """What is still faulty afterwards; each step is told in a line."""
        left, remade = [], []
        for name in tqdm(sorted(self.names), "repair", unit="shard", disable=not self.progress):
            try:
                tqdm.write(f"{name}: {self._remake(name)}")
                remade.append(name)
            except PrepError as error:
                tqdm.write(f"{name}: not re-made: {error}")
                left.append(name)
        self._set_right(remade, left)
        left += [name for name in remade if any(shards.faults(self.folder / name)) or not self._is_listed(name)]
        left += self._keep_again() if not left else sorted(self.kept)
        for folder in sorted(self.elsewhere):
            tqdm.write(f"{folder}: not live, so not re-made; `prep generations --prune` removes it")
        return left + sorted(self.others | self.elsewhere)

    def _keep_again(self) -> list[str]:
        """Makes the live generation's kept audio again where it is faulty; the tars that are left as they are."""
        live = self.draft.kept_folder if self.draft.config.keep_audio else None
        mine = {name: self.out / name for name in sorted(self.kept) if live == (self.out / name).parent}
        for name in sorted(self.kept - mine.keys()):
            tqdm.write(f"{name}: not kept for the live generation, so not re-made; delete it and its receipt")
        if mine and self.root is None:
            tqdm.write(f"{min(mine)}: not re-made: it is made of the corpus: --root FOLDER")
        if not mine or self.root is None:
            return sorted(self.kept)
        for tar in mine.values():
            tar.unlink(missing_ok=True)
            tar.with_suffix(".json").unlink(missing_ok=True)
        finish(replace(self.draft, ledger=read_ledger(self.out / "ledger.parquet")), self.workers, progress=False)
        tqdm.write(f"{', '.join(mine)}: re-made")
        return [name for name in sorted(self.kept) if name not in mine or any(faults_of(mine[name], name))]

    def _set_right(self, remade: list[str], left: list[str]) -> None:
        """dataset.json and `current`, over the shards that are there now."""
        if left and (self.index is None or not all(self._is_listed(name) for name in remade)):
            # it would vouch for what is faulty
            tqdm.write(f"dataset.json: not written anew before {', '.join(left)} can be re-made")
            return
        if self.index is None:
            whole = replace(self.draft, ledger=read_ledger(self.out / "ledger.parquet"))
            (self.folder / "dataset.json").unlink(missing_ok=True)
            finish(whole, self.workers, progress=False)
            self.index = load_index(self.folder)
            tqdm.write("dataset.json: written anew from the receipts")
        elif not all(self._is_listed(name) for name in remade):
            self._list_anew(self.index)
        if "current" in self.others:
            shards.set_current(self.out, self.folder.name)
            tqdm.write(f"current: names {self.folder.name} again, which plan.parquet makes")
        self.others -= {"dataset.json", "current"}

    def _remake(self, name: str) -> str:
        """Write the shard and its receipt; returns what was done. Raises PrepError, and leaves them as they are."""
        rows = self.draft.groups.get(name, [])
        path, listed, made_of = self.folder / name, self._listed(name), self.draft.made_of.get(name, "")
        if not rows and path.exists():
            raise PrepError("the plan has no such shard; delete it and its receipt.")
        whole = listed and not self._is_listed(name) and _sha256(path) == listed["sha256"]
        if not whole and take_over(self.out, self.folder, {name: made_of}):
            return "taken from another generation that holds it"
        examples = self._from_tar(path, rows) if whole else self._from_sources(rows)
        told = fingerprint() | self.draft.device.fingerprint
        receipt = shards.write_shard(path, examples, told, made_of)
        if not listed:
            return "re-made"
        if receipt.sha256 == listed["sha256"]:
            self._settle(path, receipt, listed["receipt_sha256"])
            return "its receipt is re-made from its tar" if whole else "re-made, byte for byte"
        return "re-made, but not with the same bytes: it was built on another machine or with other libraries"

    def _from_sources(self, rows: list[PlanRow]) -> Iterator[shards.Example]:
        """Built as `prep build` does; streams are copied from other generations only."""
        jobs = [
            replace(job, known=self._elsewhere(job.known), heard=self._elsewhere(job.heard))
            for job in self.draft.jobs(rows)
        ]
        if self.root is None and any(job.needed for job in jobs):
            raise PrepError("it is made of the corpus that the dataset was built from: --root FOLDER.")
        return (built.example for built in self.draft.built(jobs, self.workers))

    def _from_tar(self, path: Path, rows: list[PlanRow]) -> Iterator[shards.Example]:
        """The examples of a tar that is whole."""
        planned = {row.id: row for row in rows}
        with tarfile.open(path, "r:") as tar:
            for id, group in groupby(tar, key=lambda info: info.name.partition(".")[0]):
                data = {info.name.partition(".")[2]: _read(tar, info) for info in group}
                arrays = {
                    key: np.load(io.BytesIO(data[f"{key}.npy"]), allow_pickle=False)
                    for key in ("stems", "mixes", "levels")
                }
                # the tar is what dataset.json lists, and the plan what made it
                sources, audio = sources_of(planned[id]), self.draft.audio[id]
                streams = stream_digests(audio, self.draft.identity)
                yield shards.Example(
                    id=id, meta=json.loads(data["json"]), sources=sources, streams=streams, audio=audio, **arrays
                )

    def _settle(self, path: Path, receipt: shards.Receipt, wanted: str) -> None:
        """Of equal tars only the fingerprint may differ: where another receipt's makes the one that is listed, that."""
        if _sha256(path.with_suffix(".json")) == wanted:
            return
        for other in self._fingerprints:
            data = dump_json(replace(receipt, fingerprint=other).to_json())
            if hashlib.sha256(data).hexdigest() == wanted:
                with atomic(path.with_suffix(".json")) as file:
                    file.write(data)
                return

    def _list_anew(self, index: dict[str, Any]) -> None:
        """dataset.json over receipts of which some are others now."""
        header = {key: value for key, value in index.items() if key not in ("format", "splits", "statistics", "sha256")}
        names = {split: [item["name"] for item in value["shards"]] for split, value in index["splits"].items()}
        self.index = shards.write_index(self.folder, header, names)
        tqdm.write("dataset.json: written anew, to list the re-made receipts")

    def _is_listed(self, name: str) -> bool:
        """Whether dataset.json lists the receipt that lies there; one without examples it does not list."""
        listed = self._listed(name)
        return listed is None or _sha256((self.folder / name).with_suffix(".json")) == listed["receipt_sha256"]

    def _listed(self, name: str) -> dict[str, Any] | None:
        splits = self.index["splits"].values() if self.index else []
        return next((item for split in splits for item in split["shards"] if item["name"] == name), None)

    def _elsewhere(self, places: Mapping[int, Place]) -> dict[int, Place]:
        return {number: place for number, place in places.items() if place.folder != self.folder}

    @cached_property
    def _fingerprints(self) -> list[dict[str, str]]:
        """All that stand in the generation's receipts."""
        found = {}
        for path in self.folder.glob("*-[0-9]*.json"):
            try:
                told = shards.read_receipt(path).fingerprint
                found[json.dumps(told)] = told
            except (shards.ShardError, TypeError):
                continue
        return list(found.values())


def recorded_draft(out: Path, root: Path | None) -> Draft:
    """What made the live generation: plan.parquet and the config in dataset.json; its ledger is left empty.

    Where `current` is wrong, the generation that plan.parquet makes. Raises PrepError where there is none.
    """
    rows = tuple(read_plan(out / "plan.parquet"))
    header, counts = read_header(out / "plan.parquet")
    try:
        live = [out / "generations" / shards.current(out)]
    except shards.ShardError:
        live = []
    every = sorted(folder for folder in out.glob("generations/*") if folder.is_dir())
    wanted = [folder for folder in live if folder in every] or every
    reasons: list[str] = []
    for config in _configs(header, [*wanted, *every]):
        try:
            identity = load_codec(config.codec).identity
        except PrepError as error:
            reasons.append(str(error))
            continue
        draft = Draft(root, out, config, identity, Plan(rows, counts, {}, plan_digest(rows, config)), [])
        if draft.folder in wanted:
            return draft
    made = " or ".join(folder.name for folder in wanted) or "any generation"
    reasons.append(f"{out}: plan.parquet does not make {made} (a later build, or damage).")
    raise PrepError(f"{reasons[0]} {_AGAIN}")


def _configs(header: dict[str, Any], folders: list[Path]) -> Iterator[PrepConfig]:
    """What the plan and the generations were built with."""
    found = [header["config"]]
    for folder in dict.fromkeys(folders):
        with suppress(shards.ShardError):
            found.append(load_index(folder)["config"])
    for value in found:
        with suppress(TypeError, ValidationError):
            yield PrepConfig(**value)


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return file.read() if file else b""


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
