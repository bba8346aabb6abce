"""Streams' audio as FLAC, as the codec got it (`keep_audio`): a rebuild then reads no source, and mixes nothing.

`OUT/audio/<plan>/train-000000.tar` holds `<id>.<stream>.flac` for every stream of that shard's examples, stems first,
and the receipt beside it says where each lies, its sha256, and its audio's digest, by which it is found from any plan.
A FLAC has 24 bits, and to these audio is rounded before it is encoded: so what is kept gives the latents that the
sources gave.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from prep.errors import PrepError
from prep.pieces import Lap, Pieces
from prep.reuse import link
from prep.spool import Audio
from shards.generations import atomic
from shards.receipt import dump_json

FORMAT = 1
# 1.0 in 24 bits
FULL_SCALE = 1 << 23
# of 0 to 1: a third quicker than libsndfile's own choice, for 3 % more bytes
COMPRESSION = 0.25
_BLOCK = 1 << 20
# FLACs that are open at a time: each takes some MB, and a process has but a thousand files
AT_ONCE = 50


@dataclass(frozen=True)
class Flac:
    """A FLAC: a part of a tar, or a file of its own, which is `loose`."""

    name: str
    path: Path
    offset: int
    size: int
    sha256: str

    @property
    def loose(self) -> bool:
        return self.offset == 0  # a tar begins with a header

    def __str__(self) -> str:
        return f"{self.name} in {self.path}"

    def is_sound(self) -> bool:
        """Whether its bytes are what was kept."""
        digest, left = hashlib.sha256(), self.size
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                while block := file.read(min(left, _BLOCK)):
                    digest.update(block)
                    left -= len(block)
        except OSError:
            return False
        return digest.hexdigest() == self.sha256

    def stretches(self, channels: int, samples: int, length: int) -> Iterator[Audio]:
        """Its first `samples`, (channels, up to `length`) at a time."""
        with self.path.open("rb") as file, soundfile.SoundFile(_Part(file, self.offset, self.size)) as flac:
            for start in range(0, samples, length):
                shape = (channels, min(length, samples - start))
                # one channel stands for all; a read that comes up short has another shape, and raises
                yield np.broadcast_to(flac.read(shape[1], dtype="float32", always_2d=True).T, shape)


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._file.fileno(), wanted, self._offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_pieces(flacs: Mapping[int, Flac], channels: int, samples: int, length: int, lap: Lap) -> Pieces[int]:
    """The streams side by side in stretches of `length`, AT_ONCE after AT_ONCE of them."""
    numbers = list(flacs)
    for first in range(0, len(numbers), AT_ONCE):
        opened = {number: flacs[number].stretches(channels, samples, length) for number in numbers[first:][:AT_ONCE]}
        for _ in range(0, samples, length):
            for number, stretches in opened.items():
                audio = next(stretches)
                lap("read")
                yield number, audio


def rounded(pieces: Pieces[int], paths: Mapping[int, Path], rate: int, samples: int, lap: Lap) -> Pieces[int]:
    """The pieces in 24 bits; of the streams in `paths`, all `samples` are written there as FLAC, too.

    Channels that are one, repeated as a view, are written as one. Raises PrepError where a file cannot be written."""
    files: dict[int, soundfile.SoundFile] = {}
    try:
        for number, audio in pieces:
            distinct = audio[:1] if audio.strides[0] == 0 else audio
            codes = np.clip(np.rint(distinct * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int32)
            if number in paths:
                if number not in files:
                    files[number] = _opened(paths[number], rate, len(codes))
                _write(files[number], codes, samples)
            lap("keep")
            yield number, np.broadcast_to(codes.astype(np.float32) / np.float32(FULL_SCALE), audio.shape)
    finally:
        for file in files.values():
            file.close()


def _opened(path: Path, rate: int, channels: int) -> soundfile.SoundFile:
    return soundfile.SoundFile(path, "w", rate, channels, "PCM_24", format="FLAC", compression_level=COMPRESSION)


def _write(file: soundfile.SoundFile, codes: np.ndarray, samples: int) -> None:
    """Closes the file after the last of `samples`."""
    try:
        file.write(codes.T << 8)
        if file.frames < samples:
            return
        file.close()
        # libsndfile is silent about what fails at the end; the header is completed last
        whole = soundfile.info(file.name).frames == samples
    except soundfile.LibsndfileError:
        whole = False
    if not whole:
        raise PrepError(f"{file.name} cannot be written; is the disk full? Make room, and run the same command again.")


def flac_name(id: str, number: int) -> str:
    return f"{id}.{number}.flac"


def new_files(scratch: Path, id: str, numbers: Iterable[int]) -> dict[int, Path]:
    """Where to write FLACs of an example: in a folder of its own, without what a killed build has left there."""
    folder = scratch / f".{id}.part"
    shutil.rmtree(folder, ignore_errors=True)
    paths = {number: folder / flac_name(id, number) for number in numbers}
    if paths:
        folder.mkdir()
    return paths


def flac_at(path: Path) -> Flac:
    """Of a file of its own."""
    with path.open("rb") as file:
        return Flac(path.name, path, 0, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def made_of(audio: Mapping[str, Sequence[str]]) -> str:
    """Of a tar with these examples' streams: id -> digests of their audio."""
    return hashlib.sha256(json.dumps([FORMAT, list(audio.items())]).encode()).hexdigest()[:32]


@contextmanager
def packing(path: Path, made_of: str) -> Iterator[Callable[[Sequence[Flac], Sequence[str]], None]]:
    """A tar and its receipt, or neither; what is yielded takes an example's FLACs with the digests of their audio, and
    removes those that are loose, with their folder. Equal FLACs give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a build that was killed
        left.unlink(missing_ok=True)
    members: list[dict[str, Any]] = []
    with atomic(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:

        def add(flacs: Sequence[Flac], audio: Sequence[str]) -> None:
            for flac, digest in zip(flacs, audio, strict=True):
                info = tarfile.TarInfo(flac.name)  # mtime, uid and gid are 0, mode is 0644, owner names are empty
                info.size, offset = flac.size, file.tell() + tarfile.BLOCKSIZE
                with flac.path.open("rb") as source:
                    source.seek(flac.offset)
                    tar.addfile(info, source)
                place = {"offset": offset, "size": flac.size, "sha256": flac.sha256}
                members.append({"name": flac.name, **place, "audio": digest})
                if flac.loose:  # now, since all of a long example are many
                    flac.path.unlink()
            for folder in {flac.path.parent for flac in flacs if flac.loose}:
                folder.rmdir()

        yield add
        tar.close()
        size = file.tell()
        path.with_suffix(".json").unlink(missing_ok=True)  # an older receipt must not vouch for the new tar
    with atomic(path.with_suffix(".json")) as file:
        file.write(dump_json({"format": FORMAT, "bytes": size, "made_of": made_of, "members": members}))


def kept_of(tar: Path) -> str | None:
    """What the tar is made of, if it was written to its end, else None. No payload is read."""
    receipt = _receipt(tar)
    return str(receipt["made_of"]) if receipt else None


def kept_in(out: Path) -> dict[str, Flac]:
    """All kept audio in OUT, by its digest. What cannot be read holds nothing."""
    found: dict[str, Flac] = {}
    for path in sorted(out.glob("audio/*/*.json")):
        tar = path.with_suffix(".tar")
        for member in (_receipt(tar) or {"members": []})["members"]:
            place = {key: member[key] for key in ("name", "offset", "size", "sha256")}
            found.setdefault(member["audio"], Flac(path=tar, **place))
    return found


def _receipt(tar: Path) -> dict[str, Any] | None:
    try:
        receipt = json.loads(tar.with_suffix(".json").read_bytes())
        whole = receipt["format"] == FORMAT and receipt["bytes"] == tar.stat().st_size
        return receipt if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def take_over_kept(out: Path, folder: Path, made_of: Mapping[str, str]) -> list[str]:
    """Puts the tars (name -> what they are made of) that other plans' audio in OUT has into `folder`; their names."""
    taken = []
    for name, digest in made_of.items():
        same = next((tar for tar in sorted(out.glob(f"audio/*/{name}")) if kept_of(tar) == digest), None)
        if same:
            folder.mkdir(parents=True, exist_ok=True)
            link(same, folder)
            taken.append(name)
    return taken


@dataclass(frozen=True)
class KeptPlan:
    """The kept audio of a plan."""

    folder: Path
    tars: int  # that are finished
    bytes: int

    def line(self) -> str:
        return f"  audio/{self.folder.name}  {self.bytes / 1e6:9.1f} MB of kept audio in {self.tars} tars"


def kept_plans(out: Path) -> list[KeptPlan]:
    found = []
    for folder in sorted(path for path in out.glob("audio/*") if path.is_dir()):
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        found.append(KeptPlan(folder, sum(kept_of(tar) is not None for tar in folder.glob("*.tar")), sum(sizes)))
    return found
