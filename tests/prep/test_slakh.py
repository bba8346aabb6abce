"""Slakh's layouts and their known defects, on folders made here; no audio is decoded while reading a corpus."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from prep.errors import PrepError, Reject
from prep.ledger import FILTERED
from prep.multitrack import Multitrack, Stem
from prep.sources.slakh import read_slakh

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "slakh"


def entry(program: int, **others: Any) -> dict[str, Any]:
    drums = program == 128
    return {"program_num": program, "is_drum": drums, "audio_rendered": True, "plugin_name": "piano.nkm", **others}


def make_track(folder: Path, stems: dict[str, Any], files: list[str] | None = None) -> Path:
    """A Track folder with metadata and files whose content nobody reads."""
    (folder / "stems").mkdir(parents=True)
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "x", "audio_dir": "nowhere", "stems": stems}))
    for name in files if files is not None else [f"{stem}.flac" for stem in stems]:
        (folder / "stems" / name).write_bytes(b"audio")
    return folder


def reasons(rejected: list[tuple[Path, Reject]], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): reject.reason for path, reject in rejected}


def test_split_folders(tmp_path: Path) -> None:
    for split, number in (("train", 3), ("validation", 2), ("test", 1), ("omitted", 4)):
        make_track(tmp_path / split / f"Track{number:05d}", {"S00": entry(0), "S01": entry(128)})
    multitracks, rejected = read_slakh(tmp_path)
    assert [(found.id, found.split) for found in multitracks] == [
        ("track00001", "test"), ("track00002", "validation"), ("track00003", "train"),
    ]  # fmt: skip
    assert multitracks[0] == Multitrack(
        "track00001",
        "test",
        (
            Stem("S00", tmp_path / "test/Track00001/stems/S00.flac", 0, "Piano"),
            Stem("S01", tmp_path / "test/Track00001/stems/S01.flac", 128, "Percussive"),
        ),
        "slakh",
        "CC BY 4.0",
    )
    assert reasons(rejected, tmp_path) == {"omitted/Track00004": "omitted"} and "omitted" in FILTERED


def test_flat_folders_take_the_original_splits(tmp_path: Path) -> None:
    for number in (1, 1500, 1501, 1875, 1876, 2100, 2101):
        make_track(tmp_path / f"Track{number:05d}", {"S00": entry(0)}, ["S00.wav"])
    multitracks, rejected = read_slakh(tmp_path)
    assert [found.split for found in multitracks] == ["train", "train", "validation", "validation", "test", "test"]
    assert reasons(rejected, tmp_path) == {"Track02101": "no_split"}


def test_one_track_folder_is_a_root_too(tmp_path: Path) -> None:
    flat = make_track(tmp_path / "Track00002", {"S00": entry(0)})
    split = make_track(tmp_path / "test" / "Track00003", {"S00": entry(0)})
    assert [(found.id, found.split) for found in read_slakh(flat)[0]] == [("track00002", "train")]
    assert [(found.id, found.split) for found in read_slakh(split)[0]] == [("track00003", "test")]


def test_a_link_is_called_as_it_is_here(tmp_path: Path) -> None:
    make_track(tmp_path / "store" / "My Song", {"S00": entry(33), "S01": entry(0)})
    (tmp_path / "corpus" / "train").mkdir(parents=True)
    (tmp_path / "corpus" / "train" / "Track00007").symlink_to(tmp_path / "store" / "My Song")
    assert [found.id for found in read_slakh(tmp_path / "corpus")[0]] == ["track00007"]


def test_the_folder_is_believed_over_the_flags(tmp_path: Path) -> None:
    stems = {
        "S00": entry(30, audio_rendered=False, midi_saved=False),
        "S01": entry(33),
        "S02": entry(110, audio_rendered=False, plugin_name="None"),
    }
    files = ["S00.flac", "S07.flac", "._S00.flac", ".DS_Store", "notes.txt"]
    make_track(tmp_path / "Track00001", stems, files)
    (multitrack,), rejected = read_slakh(tmp_path)
    assert [(stem.name, stem.program, stem.instrument) for stem in multitrack.stems] == [
        ("S00", 30, "Guitar"), ("S07", -1, "Unknown"),
    ]  # fmt: skip
    # S02 was never rendered and is not there: nothing is amiss
    assert reasons(rejected, tmp_path) == {
        "Track00001/stems/S01.flac": "missing_audio",
        "Track00001/stems/notes.txt": "unsupported_format",
    }


@pytest.mark.parametrize(
    "stem, program, instrument",
    [
        (entry(128, is_drum=False), 128, "Percussive"),
        (entry(0, is_drum=True), 128, "Percussive"),
        (entry(119), 119, "Percussive"),
        (entry(52), 52, "Ensemble"),
        (entry(129), -1, "Unknown"),
        (entry(-5), -1, "Unknown"),
        (entry(0) | {"program_num": "Piano"}, -1, "Unknown"),
        (entry(0) | {"program_num": True}, -1, "Unknown"),
        (None, -1, "Unknown"),
        ("nonsense", -1, "Unknown"),
    ],
)
def test_class_comes_by_program(tmp_path: Path, stem: Any, program: int, instrument: str) -> None:
    make_track(tmp_path / "Track00001", {"S00": stem})
    (multitrack,), rejected = read_slakh(tmp_path)
    assert (multitrack.stems[0].program, multitrack.stems[0].instrument) == (program, instrument)
    assert rejected == []


def test_a_stem_that_is_there_twice_is_taken_once(tmp_path: Path) -> None:
    make_track(tmp_path / "Track00001", {"S00": entry(0)}, ["S00.WAV", "S00.flac"])
    (multitrack,), rejected = read_slakh(tmp_path)
    assert [stem.path.name for stem in multitrack.stems] == ["S00.flac"]
    assert reasons(rejected, tmp_path) == {"Track00001/stems/S00.WAV": "duplicate_stem"}


def test_an_id_that_is_there_twice_is_taken_once(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_track(tmp_path / split / "Track00001", {"S00": entry(0)})
    (multitrack,), rejected = read_slakh(tmp_path)
    assert multitrack.split == "train" and reasons(rejected, tmp_path) == {"test/Track00001": "duplicate_id"}


def test_white_noise_is_left_out_of_slakh_and_of_nothing_else(tmp_path: Path) -> None:
    stems = {"S03": entry(0), "S04": entry(33)}
    make_track(tmp_path / "slakh" / "Track00357", stems)
    (multitrack,), rejected = read_slakh(tmp_path / "slakh")
    assert [stem.name for stem in multitrack.stems] == ["S04"]
    assert reasons(rejected, tmp_path) == {"slakh/Track00357/stems/S03.flac": "known_white_noise"}
    assert "known_white_noise" in FILTERED
    (multitrack,), rejected = read_slakh(tmp_path / "slakh", keep_white_noise=True)
    assert len(multitrack.stems) == 2 and rejected == []
    rendered = {name: stem | {"plugin_name": "TimGM6mb.sf2"} for name, stem in stems.items()}
    make_track(tmp_path / "own" / "Track00357", rendered)
    (multitrack,), rejected = read_slakh(tmp_path / "own")
    assert len(multitrack.stems) == 2 and multitrack.licence == "unknown" and rejected == []


@pytest.mark.parametrize("junk", ["\0", "\ufeff", "-", "%", "\x1f"])
def test_a_junk_first_character_is_tolerated(tmp_path: Path, junk: str) -> None:
    track = make_track(tmp_path / "Track00001", {"S00": entry(4)})
    metadata = track / "metadata.yaml"
    metadata.write_text(junk + metadata.read_text())
    (multitrack,), _ = read_slakh(tmp_path)
    assert multitrack.stems[0].program == 4


@pytest.mark.parametrize("content", [None, "", "- a\n- b\n", "stems: 3\n", "stems: [unclosed", "\0\0\0"])
def test_unreadable_metadata_rejects_the_track_and_no_other(tmp_path: Path, content: str | None) -> None:
    make_track(tmp_path / "Track00001", {"S00": entry(0)})
    metadata = make_track(tmp_path / "Track00002", {"S00": entry(0)}) / "metadata.yaml"
    metadata.unlink() if content is None else metadata.write_text(content)
    multitracks, rejected = read_slakh(tmp_path)
    assert [found.id for found in multitracks] == ["track00001"]
    assert reasons(rejected, tmp_path) == {"Track00002": "bad_metadata"}


def test_a_pipe_for_metadata_is_not_waited_for(tmp_path: Path) -> None:
    make_track(tmp_path / "Track00001", {"S00": entry(0)})
    metadata = make_track(tmp_path / "Track00002", {"S00": entry(0)}) / "metadata.yaml"
    metadata.unlink()
    os.mkfifo(metadata)
    multitracks, rejected = read_slakh(tmp_path)
    assert [found.id for found in multitracks] == ["track00001"]
    assert reasons(rejected, tmp_path) == {"Track00002": "unreadable"}


def test_a_track_without_audio_is_reported(tmp_path: Path) -> None:
    make_track(tmp_path / "Track00001", {"S00": entry(0)}, [])
    (make_track(tmp_path / "Track00002", {}, []) / "stems").rmdir()
    multitracks, rejected = read_slakh(tmp_path)
    assert multitracks == []
    assert reasons(rejected, tmp_path) == {
        "Track00001/stems/S00.flac": "missing_audio", "Track00001": "no_stems", "Track00002": "no_stems",
    }  # fmt: skip


def test_messages_say_what_was_found_and_how_to_mend_it(tmp_path: Path) -> None:
    mend = r"looked for TrackNNNNN folders, there or in train/, validation/, test/.*Set --root or \$GREENROOM_DATA"
    with pytest.raises(PrepError, match=rf"absent does not exist; {mend}"):
        read_slakh(tmp_path / "absent")
    with pytest.raises(PrepError, match="the folder is empty"):
        read_slakh(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(PrepError, match=r"is not Slakh: looked for .*; found holiday\.jpg, train\. Set --root"):
        read_slakh(tmp_path)
    with pytest.raises(PrepError, match=r"holiday.jpg is not a folder"):
        read_slakh(tmp_path / "holiday.jpg")


def test_multitracks_cannot_be_misnamed() -> None:
    stem = Stem("S00", Path("S00.wav"), 0, "Piano")
    for id, split, stems, message in (
        ("Track.1", "train", (stem,), "must match"),
        ("track1", "valid", (stem,), "must be one of train, validation, test"),
        ("track1", "train", (stem, stem), "two stems have the same name"),
    ):
        with pytest.raises(ValueError, match=message):
            Multitrack(id, split, stems, "slakh", "unknown")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared Slakh material is not here")
def test_real_slakh_material() -> None:
    multitracks, rejected = read_slakh(SHARED)
    assert [(found.id, found.split, len(found.stems)) for found in multitracks] == [("track00001_baby", "train", 10)]
    assert multitracks[0].licence == "CC BY 4.0"
    assert {stem.name: stem.instrument for stem in multitracks[0].stems}["S04"] == "Ensemble"
    # Track00001 is MIDI and metadata only
    assert sorted({reject.reason for _, reject in rejected}) == ["missing_audio", "no_stems"]
