"""The nouns of `prep`: a multitrack is a piece, a stem is one instrument's part of it.

Both only describe: the audio stays on disk until `prep.audio.read_audio` is asked for it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")

# webdataset lower-cases keys and cuts them at dots, so an id may hold neither capitals nor dots
MAX_ID = 80
_ID = re.compile(rf"[a-z0-9_-]{{1,{MAX_ID}}}")


@dataclass(frozen=True)
class Stem:
    """`program` is 0 to 127 (General MIDI, 0-based), 128 for drums, -1 when unknown; `instrument` one of `CLASSES`."""

    name: str
    path: Path
    program: int
    instrument: str


@dataclass(frozen=True)
class Multitrack:
    """One piece. Its id is unique in its corpus, its stems' names within it; raises ValueError where they cannot be.

    A rendition that the corpus already holds names its `original` (an id, of the same split) and the `augmentation`
    that made it (`Augmentation.to_json`).
    """

    id: str
    split: str
    stems: tuple[Stem, ...]
    corpus: str
    licence: str
    original: str = ""
    augmentation: str = "{}"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"multitrack id {self.id!r} must match {_ID.pattern}")
        if self.split not in SPLITS:
            raise ValueError(f"{self.id}: split {self.split!r} must be one of {', '.join(SPLITS)}")
        if len({stem.name for stem in self.stems}) != len(self.stems):
            raise ValueError(f"{self.id}: two stems have the same name")
