"""Examples as pieces of work for a worker: what is to be done, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import shards
from prep.codecs.protocol import frames_of
from prep.kept import Flac
from prep.plan import PlanRow
from prep.reuse import Place
from prep.stages.mixing import Members

# A bundle waits in memory until all of it is made, what is only copied too: so many times the frames it has to encode.
COPIED = 4


@dataclass(frozen=True)
class Built:
    """An example; the seconds of audio that were read and encoded for it, how many of its streams were encoded, and
    the seconds that each stage took (of a bundle, with its first example); its streams' FLACs, if they were asked for;
    what a person should know; and how many frames the codec ran for it, and how many of them were padding."""

    example: shards.Example
    stem_s: float
    stream_s: float
    encoded: int
    seconds: dict[str, float]
    flacs: Sequence[Flac] = ()
    told: Sequence[str] = ()
    ran_frames: int = 0
    padding_frames: int = 0


@dataclass(frozen=True)
class Job:
    """An example to build, and where finished streams of it lie, by their number: stems first, then mixes. Streams of
    the same audio, in `heard`, bring what is measured of it; `kept` is that audio. `keep`: FLACs are asked for, too."""

    row: PlanRow
    known: Mapping[int, Place] = field(default_factory=dict)
    heard: Mapping[int, Place] = field(default_factory=dict)
    kept: Mapping[int, Flac] = field(default_factory=dict)
    keep: bool = False

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def members(self) -> list[Members]:
        """Of every stream."""
        return [*((i,) for i in range(len(self.row.stems))), *self.row.mixes]

    @property
    def missing(self) -> list[int]:
        """The streams that are not known."""
        return [number for number in range(len(self.members)) if number not in self.known]

    def frames(self, hop: int, streams: Sequence[object]) -> int:
        """Of so many of its streams."""
        return len(streams) * frames_of(self.row.samples, hop)

    @property
    def reread(self) -> list[int]:
        """The missing streams that kept audio is encoded for."""
        return [number for number in self.missing if number in self.kept and number in self.heard]

    @property
    def mixed(self) -> list[int]:
        """The streams that are made of sources: those that are missing, and those whose audio is to be kept."""
        unkept = set(range(len(self.members))) - self.kept.keys() if self.keep else set()
        return sorted(unkept.union(self.missing) - set(self.reread))

    @property
    def needed(self) -> list[int]:
        """The stems that those are made of."""
        members = self.members
        return sorted({i for number in self.mixed for i in members[number]})


@dataclass(frozen=True)
class Bundle:
    """Examples of one shard that a worker makes together, so that their streams may share calls of the codec."""

    jobs: tuple[Job, ...]

    @property
    def id(self) -> str:
        return " ... ".join(sorted({self.jobs[0].id, self.jobs[-1].id}))


def bundled(jobs: Iterable[Job], hop: int, most_frames: int) -> Iterator[Bundle]:
    """In order: one job each, or as many of a shard as it takes to come to `most_frames` of missing streams, or to
    COPIED times as many of all."""
    held: list[Job] = []
    missing = every = 0
    for job in jobs:
        full = missing >= most_frames or every >= COPIED * most_frames
        if held and (full or (job.row.split, job.row.shard) != (held[0].row.split, held[0].row.shard)):
            yield Bundle(tuple(held))
            held, missing, every = [], 0, 0
        held.append(job)
        missing += job.frames(hop, job.missing)
        every += job.frames(hop, job.members)
    if held:
        yield Bundle(tuple(held))


class Clock:
    """Seconds a stage, from lap to lap of the same thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock, self._last = threading.Lock(), threading.local()
        self.skip()

    def skip(self) -> None:
        """What this thread did since its last lap is no stage's. Every thread begins with this."""
        self._last.time = time.monotonic()

    def lap(self, stage: str) -> None:
        last = self._last.time
        self.skip()
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self._last.time - last
