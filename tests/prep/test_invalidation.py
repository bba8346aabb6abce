"""The README's table of what is made again after which change, walked row by row.

Each change is made to a finished dataset, which is then built again. What is new must be what a build from nothing
gives, byte for byte (no stale stream), and no more may have been encoded than the table says (no needless one).
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch

import shards
from prep.codecs import load_codec, save_codec
from prep.config import Loudness, Mixing
from prep.report import Report
from tests.prep.built import files, run
from tests.prep.made import tones, write_corpus, write_track

TABLE = Path(__file__).parents[2] / "README.md"


@dataclass
class Case:
    """A dataset that is finished, and what the next build of it is asked."""

    root: Path
    out: Path
    codec: str
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, out: Path | None = None) -> Report:
        return run(self.root, out or self.out, self.codec, **self.settings)

    def reached(self, id: str, stem: int) -> int:
        """How many streams hold this stem."""
        return sum(stem in members for members in self.members()[id])

    def members(self) -> dict[str, list[list[int]]]:
        return {record.id: record.meta["members"] for record in shards.open(self.out)}


def one_weight(case: Case) -> int:
    codec = load_codec(case.codec)
    with torch.no_grad():
        next(codec.parameters()).flatten()[0] += 0.5
    path = case.root.parent / "other.safetensors"
    save_codec(codec, path)
    case.codec = f"causal={path}"
    return sum(map(len, case.members().values()))


def dtype(case: Case) -> int:
    case.codec = case.codec.replace("causal=", "causal@bfloat16=")
    return sum(map(len, case.members().values()))


def one_sample(case: Case) -> int:
    path = case.root / "train/Track00001/stems/S01.flac"
    audio, rate = sf.read(path, dtype="int16")
    audio[1000] += 1
    reached = case.reached("track00001", 1)
    sf.write(path, audio, rate, subtype="PCM_16")
    return reached


def touched(case: Case) -> int:
    for path in case.root.rglob("*.flac"):
        path.touch()
    return 0


def moved(case: Case) -> int:
    case.root = case.root.rename(case.root.with_name("elsewhere"))
    return 0


def loudness(case: Case) -> int:
    case.settings["loudness"] = Loudness(mix_lufs=-20.0)
    return sum(len(each) > 1 for members in case.members().values() for each in members)


def stem_loudness(case: Case) -> int:
    case.settings["loudness"] = Loudness(stem_lufs=-21.0)
    return sum(map(len, case.members().values()))


def more_mixes(case: Case) -> int:
    case.settings["mixing"] = Mixing(subsets_per_target=4)
    return _counted(case) - sum(map(len, case.members().values()))


def song_added(case: Case) -> int:
    write_track(case.root / "train/Track00077", tones(9))
    return _counted(case) - sum(map(len, case.members().values()))


def song_removed(case: Case) -> int:
    shutil.rmtree(case.root / "train/Track00001")
    return 0


def keep_audio(case: Case) -> int:
    case.settings["keep_audio"] = True
    return sum(map(len, case.members().values()))


def fewer_bad(case: Case) -> int:
    case.settings["max_bad_fraction"] = 0.5
    return 0


def _counted(case: Case) -> int:
    """The streams of a build from nothing."""
    counted = replace(case, out=case.out.with_name("counted"))
    counted.build()
    return sum(map(len, counted.members().values()))


CHANGES: dict[str, Callable[[Case], int]] = {
    "one weight of the codec": one_weight,
    "the codec's dtype": dtype,
    "one PCM sample of a stem": one_sample,
    "a file's time": touched,
    "the corpus's folder": moved,
    "`loudness.mix_lufs`": loudness,
    "`loudness.stem_lufs`": stem_loudness,
    "more mixes": more_mixes,
    "a song more": song_added,
    "a song less": song_removed,
    "`max_bad_fraction`, or anything of a training config": fewer_bad,
    "`keep_audio`": keep_audio,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_change_costs(tmp_path: Path, codec: str, change: str) -> None:
    write_track(tmp_path / "corpus/train/Track00008", tones(3, stems=6))
    case = Case(write_corpus(tmp_path / "corpus"), tmp_path / "out", codec)
    case.build()
    wanted = CHANGES[change](case)
    report = case.build()
    encoded = report.work.encoded if report.work else 0
    assert encoded == wanted
    case.build(tmp_path / "fresh")
    assert files(tmp_path / "fresh").items() <= files(case.out).items()
    assert shards.current(tmp_path / "fresh") == shards.current(case.out)


def test_the_readme_has_these_rows() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|[^|]*\|[^|]*\|$", TABLE.read_text(), re.MULTILINE)
    assert set(CHANGES) <= set(rows)
