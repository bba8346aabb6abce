"""Renditions and names in Slakh's layout: what is believed, what is refused, and that nothing vanishes."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from prep.errors import Reject
from prep.scan import left_out, read_scan, write_scan
from prep.sources.slakh import read_slakh
from prep.stages.augment import Augmentation
from tests.prep.test_slakh import entry, make_track, reasons

FASTER = Augmentation(speed=1.1, semitones=2.0).to_json()


def make_rendition(folder: Path, **said: Any) -> Path:
    make_track(folder, {"S00": entry(0), "S01": entry(33)})
    metadata = folder / "metadata.yaml"
    metadata.write_text(yaml.safe_dump(yaml.safe_load(metadata.read_text()) | said))
    return folder


def test_a_rendition_names_its_original(tmp_path: Path) -> None:
    make_rendition(tmp_path / "train" / "Track00007")
    make_rendition(tmp_path / "train" / "Track00007_r1", rendition_of="Track00007", augmentation=FASTER)
    (original, rendition), rejected = read_slakh(tmp_path)
    assert (original.id, original.original, original.augmentation) == ("track00007", "", "{}")
    assert (rendition.id, rendition.original) == ("track00007_r1", "track00007")
    assert Augmentation.from_json(rendition.augmentation) == Augmentation(speed=1.1, semitones=2.0)
    assert rejected == []


@pytest.mark.parametrize(
    "said",
    [
        {"rendition_of": 7, "augmentation": FASTER},
        {"rendition_of": None, "augmentation": FASTER},
        {"rendition_of": "song 7", "augmentation": FASTER},
        {"rendition_of": "Track00007_r1", "augmentation": FASTER},
        {"rendition_of": "Track00007"},
        {"rendition_of": "Track00007", "augmentation": {"speed": 1.1}},
        {"rendition_of": "Track00007", "augmentation": "speed 1.1"},
        {"rendition_of": "Track00007", "augmentation": "[1.1]"},
        {"rendition_of": "Track00007", "augmentation": '{"tempo": 1.1}'},
        {"rendition_of": "Track00007", "augmentation": '{"bands": 3}'},
        {"rendition_of": "Track00007", "augmentation": "[" * 100_000},
    ],
)
def test_what_a_rendition_says_is_checked(tmp_path: Path, said: dict[str, Any]) -> None:
    make_rendition(tmp_path / "train" / "Track00007")
    make_rendition(tmp_path / "train" / "Track00007_r1", **said)
    multitracks, rejected = read_slakh(tmp_path)
    assert [found.id for found in multitracks] == ["track00007"]
    assert reasons(rejected, tmp_path) == {"train/Track00007_r1": "bad_metadata"}


def test_renditions_are_for_training_only(tmp_path: Path) -> None:
    """Neither may a rendition stand outside train, nor its original."""
    said = {"augmentation": FASTER}
    for split, number in (("train", 1), ("test", 2), ("test", 3)):
        make_rendition(tmp_path / split / f"Track{number:05d}")
    make_rendition(tmp_path / "train" / "Track00001_r1", rendition_of="Track00001", **said)
    make_rendition(tmp_path / "test" / "Track00002_r1", rendition_of="Track00002", **said)
    make_rendition(tmp_path / "train" / "Track00003_r1", rendition_of="Track00003", **said)
    multitracks, rejected = read_slakh(tmp_path)
    assert [found.id for found in multitracks] == ["track00001", "track00001_r1", "track00002", "track00003"]
    assert reasons(rejected, tmp_path) == {
        "test/Track00002_r1": "rendition_not_train", "train/Track00003_r1": "rendition_not_train",
    }  # fmt: skip
    assert {reject.detail for _, reject in rejected} == {
        "a rendition in test; only multitracks for training have any", "its original is in test",
    }  # fmt: skip


def test_a_stem_without_a_program_has_the_class_of_its_name(tmp_path: Path) -> None:
    stems = {
        "S00": entry(-1, inst_class="Strings (continued)"),
        "S01": entry(-1, inst_class="drums"),
        "S02": entry(-1, inst_class="theremin"),
        "S03": entry(-1, inst_class=7),
        "S04": entry(0, inst_class="Guitar"),
    }
    make_track(tmp_path / "Track00001", stems)
    (multitrack,), _ = read_slakh(tmp_path)
    assert [(stem.program, stem.instrument) for stem in multitrack.stems] == [
        (-1, "Ensemble"), (-1, "Percussive"), (-1, "Unknown"), (-1, "Unknown"), (0, "Piano"),
    ]  # fmt: skip


def test_names_that_are_not_utf8_are_listed_and_can_be_written_down(tmp_path: Path) -> None:
    track = make_track(tmp_path / "Track00001", {"S00": entry(0), "S01 lead": entry(30)})
    for name in (b"S\xff.flac", b"notes\xfe.txt"):
        Path(os.fsdecode(os.fsencode(track / "stems") + b"/" + name)).write_bytes(b"audio")
    (multitrack,), rejected = read_slakh(tmp_path)
    assert [stem.name for stem in multitrack.stems] == ["S00", "S01 lead"]
    assert reasons(rejected, tmp_path) == {
        "Track00001/stems/S\\udcff.flac": "bad_name", "Track00001/stems/notes\\udcfe.txt": "bad_name",
    }  # fmt: skip
    rows = left_out(rejected, tmp_path, "slakh")
    write_scan(rows, tmp_path / "scan.parquet", "key")
    assert read_scan(tmp_path / "scan.parquet", "key") == rows


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    track = make_track(tmp_path / "Track00001", {"S00": entry(0), "S01": entry(0)}, ["S00.flac"])
    for name in ("S01.flac", "S05.wav"):
        (track / "stems" / name).symlink_to(tmp_path / "unplugged" / name)
    (tmp_path / "Track00002").symlink_to(tmp_path / "unplugged")
    (multitrack,), rejected = read_slakh(tmp_path)
    assert [stem.name for stem in multitrack.stems] == ["S00"]
    assert [(path.name, reject) for path, reject in rejected] == [
        ("S01.flac", Reject("missing_audio", "a link to nothing")),
        ("S05.wav", Reject("missing_audio", "a link to nothing")),
        ("Track00002", Reject("bad_metadata", "metadata.yaml is missing")),
    ]


def test_a_name_longer_than_an_id_is_listed(tmp_path: Path) -> None:
    make_track(tmp_path / f"Track00001_{'a' * 69}", {"S00": entry(0)})
    make_track(tmp_path / f"Track00001_{'a' * 70}", {"S00": entry(0)})
    (multitrack,), rejected = read_slakh(tmp_path)
    assert len(multitrack.id) == 80
    assert [reject.reason for _, reject in rejected] == ["bad_name"]
