"""Builds of small corpora, for the tests of the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prep.build import Corpus, build
from prep.config import PrepConfig
from prep.report import Report
from prep.sources.slakh import read_slakh


def run(root: Path, out: Path, codec: str, workers: int = 1, **settings: Any) -> Report:
    multitracks, rejects = read_slakh(root)
    config = PrepConfig(codec=codec, **settings)
    return build(Corpus("slakh", root, multitracks, rejects), out, config, workers, progress=False)


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("generations/*/*") if path.is_file()
    }
