"""Audio files in: float32 (channels, samples), full scale at 1.0, or the reason why not.

A file that ends early is bad data, even where the decoder does not mind: FLAC is checked against the MD5 of its
samples that its header carries, WAV against the length that its header promises.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from prep.errors import Reject

Audio = NDArray[np.float32]

# Below this A- and K-weighting have no meaning
MIN_RATE_HZ = 8000
# 120 dB over full scale: no recording is that loud, so the file does not hold what its header says
MAX_PEAK = 1e6

_BLOCK = 1 << 20  # samples decoded at a time
# libsndfile's count for a FLAC whose encoder did not know the length
_OPEN_LENGTH = 2**62
_FLAC_BYTES = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}


def read_audio(path: Path, most_bytes: float = math.inf) -> tuple[Audio, int] | Reject:
    """The whole file as (float32 (channels, samples), sample rate in Hz), at least one sample, all of them finite.

    Reject reasons: missing_audio, unreadable, empty, corrupt, truncated, not_finite, out_of_range, low_rate, and
    too_much_memory where the samples that the header promises would take more than `most_bytes`.
    """
    try:
        with _open(path) as file:
            head = file.read(64)
            if not head:
                return Reject("empty", "the file has no bytes")
            promised = _wav_shortfall(file) if head[:4] == b"RIFF" else 0
        if promised:
            return Reject("truncated", f"{promised} bytes short of what the WAV header says")
        decoded = _decode(path, head, most_bytes)
    except FileNotFoundError:
        return Reject("missing_audio", "no such file")
    except OSError as error:
        return Reject("unreadable", error.strerror or type(error).__name__)
    except soundfile.LibsndfileError as error:
        return Reject("corrupt", error.error_string.strip() or "not an audio file")
    return decoded if isinstance(decoded, Reject) else _checked(*decoded)


def _decode(path: Path, head: bytes, most_bytes: float) -> tuple[Audio, int] | Reject:
    """(channels, samples) and the rate."""
    with soundfile.SoundFile(os.fsencode(path)) as file:  # soundfile takes no name that is not UTF-8 but in bytes
        if file.frames >= _OPEN_LENGTH:
            # libsndfile cannot step through it either
            return Reject("corrupt", "the header does not say how long it is; write it again with `flac` or `sox`")
        if (size := 4 * file.channels * file.frames) > most_bytes:
            told = f"{size / 1e9:.1f} GB by its header, the limit is {most_bytes / 1e9:g}"
            return Reject("too_much_memory", f"{told}; allow more: --set limits.decode_gb=GB")
        md5 = None
        if head[:4] == b"fLaC":
            if file.subtype not in _FLAC_BYTES:
                return Reject("corrupt", "a FLAC of unknown sample width")
            # STREAMINFO follows "fLaC" and a block header of 4 bytes; its last 16 bytes are the MD5, zero where there
            # is none
            md5 = _Md5(head[26:42], _FLAC_BYTES[file.subtype])
        try:
            # not filled, so that a header's empty promise takes no memory
            audio = np.empty((file.channels, file.frames), np.float32)
        except MemoryError:
            return Reject("corrupt", f"the header promises {file.frames} samples, more than memory holds")
        if (samples := _fill(audio, file, md5)) != file.frames:
            return Reject("truncated", f"{samples} samples of {file.frames}")
        if md5 and not md5.holds():
            return Reject("corrupt", "samples do not match the MD5 in the FLAC header")
        return audio, file.samplerate


def _fill(audio: Audio, file: soundfile.SoundFile, md5: _Md5 | None) -> int:
    """Decodes into (channels, samples), full scale at 1.0, and returns how many samples there were."""
    dtype = "float32" if md5 is None else "int16" if md5.width == 2 else "int32"
    at = 0
    while len(block := file.read(_BLOCK, dtype=dtype, always_2d=True)):
        here = audio[:, at : at + len(block)]
        here[:] = block.T
        if md5:
            md5.update(block)
            # 24 bits at most, so float32 holds them exactly
            here *= np.float32(2.0 ** (1 - 8 * block.dtype.itemsize))
        at += len(block)
    return at


class _Md5:
    """MD5 of the samples as interleaved little-endian integers of `width` bytes (FLAC format, STREAMINFO)."""

    def __init__(self, expected: bytes, width: int) -> None:
        self.width = width
        self._expected = expected
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, left_justified: NDArray[np.generic]) -> None:
        stored = left_justified.dtype.itemsize
        integers = np.ascontiguousarray(left_justified, dtype=f"<i{stored}")
        if stored > self.width:
            integers = np.ascontiguousarray(integers.view(np.uint8).reshape(-1, stored)[:, stored - self.width :])
        self._md5.update(integers.data)

    def holds(self) -> bool:
        """True, too, where the encoder wrote none."""
        return not any(self._expected) or self._md5.digest() == self._expected


def _wav_shortfall(file: BinaryIO) -> int:
    """How many bytes the data chunk misses; 0 too where the header leaves its length open (0 or 0xFFFFFFFF)."""
    end = file.seek(0, 2)
    at = 12
    while at + 8 <= end:
        file.seek(at)
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"data":
            return 0 if size in (0, 0xFFFFFFFF) else max(0, at + 8 + size - end)
        # chunks are padded to even lengths
        at += 8 + size + size % 2
    return 0


def _checked(audio: Audio, rate: int) -> tuple[Audio, int] | Reject:
    if audio.size == 0:
        return Reject("empty", "no samples")
    if rate < MIN_RATE_HZ:
        return Reject("low_rate", f"{rate} Hz; at least {MIN_RATE_HZ} Hz are needed")
    peak = max(float(audio.max()), -float(audio.min()))
    if not np.isfinite(peak):
        return Reject("not_finite", "holds NaN or infinity")
    if peak > MAX_PEAK:
        return Reject("out_of_range", f"peak {peak:.3g}, full scale is 1")
    return audio, rate


def resample(audio: Audio, rate_hz: int, to_hz: int) -> Audio:
    """Resamples (channels, samples) with soxr's "VHQ" to exactly ceil(samples * to_hz / rate_hz) samples."""
    if rate_hz == to_hz:
        return audio
    length = -(-audio.shape[-1] * to_hz // rate_hz)
    resampled = np.zeros((audio.shape[0], length), np.float32)
    converted = soxr.resample(audio.T, rate_hz, to_hz, quality="VHQ").T[:, :length]
    resampled[:, : converted.shape[1]] = converted
    return resampled


def expand(audio: Audio, channels: int) -> Audio | Reject:
    """Brings (c, samples) to the codec's channels: one is repeated (a view), several become one by their mean.

    Other pairs need a downmix that somebody has to choose: Reject("channels").
    """
    have = audio.shape[0]
    if have == channels:
        return audio
    if have == 1:
        return np.broadcast_to(audio, (channels, audio.shape[1]))
    if channels == 1:
        return audio.mean(axis=0, keepdims=True, dtype=np.float32)
    return Reject("channels", f"{have} channels cannot become {channels}")


def content_digest(path: Path) -> str:
    """sha256 of the file's bytes, in hex."""
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    """Raises OSError for what is no file: a pipe would be waited for, a device read for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file but a folder, a pipe or a device")
    return path.open("rb")
