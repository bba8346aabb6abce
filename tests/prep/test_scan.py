import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from prep.config import Audio
from prep.errors import Reject
from prep.scan import ScanJob, ScanRow, Target, load_stem, read_scan, scan, scan_key, write_scan
from prep.sources.slakh import read_slakh
from prep.stages.activity import levels_db
from prep.stages.loudness import integrated_lufs, noted
from tests.prep.made import RATE, tone, tones, write_corpus, write_track

TARGET = Target(RATE, 2, Audio())


def scanned(root: Path, earlier: list[ScanRow], target: Target = TARGET) -> tuple[list[ScanRow], list[str]]:
    """The rows, and which files were opened for them."""
    opened: list[str] = []

    def run(function: Callable[[ScanJob], ScanRow], items: list[ScanJob]) -> Iterator[ScanRow]:
        opened.extend(item.id for item in items)
        return map(function, items)

    multitracks, _ = read_slakh(root)
    return list(scan(multitracks, root, target, earlier, run)), opened


def test_measures_are_of_the_expanded_audio(tmp_path: Path) -> None:
    write_track(tmp_path / "train/Track00001", tones(1, 2))
    rows, _ = scanned(tmp_path, [])
    assert [(row.id, row.split, row.stem, row.path) for row in rows] == [
        ("track00001", "train", "S00", "train/Track00001/stems/S00.flac"),
        ("track00001", "train", "S01", "train/Track00001/stems/S01.flac"),
    ]
    audio, _, _ = load_stem(tmp_path / rows[0].path, TARGET)
    np.testing.assert_allclose(audio[0], tone(1), atol=2e-5)
    assert audio.shape[0] == 2 and np.array_equal(audio[0], audio[1])
    assert rows[0].channels == 1 and rows[0].samples == 3 * RATE and rows[0].peak == pytest.approx(np.abs(audio).max())
    assert rows[0].loudness_lufs == noted(integrated_lufs(audio, RATE))
    assert integrated_lufs(audio, RATE) == pytest.approx(integrated_lufs(audio[:1], RATE) + 3.01, abs=0.01)
    np.testing.assert_allclose(rows[0].levels_db, levels_db(audio, RATE), atol=0.1)


def test_what_has_not_changed_is_not_decoded_again(tmp_path: Path) -> None:
    root, table = write_corpus(tmp_path / "corpus"), tmp_path / "scan.parquet"
    rows, opened = scanned(root, [])
    assert opened == [row.path for row in rows] and len(rows) == 14
    write_scan(rows, table, scan_key(TARGET))
    earlier = read_scan(table, scan_key(TARGET))
    assert earlier == rows
    assert scanned(root, earlier) == (rows, [])
    write_track(root / "train/Track00009", tones(4, 2))
    assert scanned(root, earlier)[1] == [f"train/Track00009/stems/S0{i}.flac" for i in (0, 1)]


def test_a_touched_file_costs_a_hash_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_corpus(tmp_path / "corpus")
    rows, _ = scanned(root, [])
    decoded: list[Path] = []
    monkeypatch.setattr("prep.scan.load_stem", lambda path, target: decoded.append(path) or load_stem(path, target))
    os.utime(root / rows[0].path, ns=(1, 1))
    again, looked_at = scanned(root, rows)
    assert looked_at == [rows[0].path] and not decoded
    assert again[0].mtime_ns == 1 and again == [replace(rows[0], mtime_ns=1), *rows[1:]]
    moved = shutil.copytree(root, tmp_path / "moved")
    assert {row.digest for row in scanned(moved, rows)[0]} == {row.digest for row in rows} and not decoded
    sf.write(root / rows[1].path, tone(9), RATE)
    changed, _ = scanned(root, rows)
    assert decoded == [root / rows[1].path] and changed[1].digest != rows[1].digest
    assert changed[1].loudness_lufs != rows[1].loudness_lufs and changed[2:] == rows[2:]


def test_other_metadata_needs_no_look_at_the_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_track(tmp_path / "train/Track00001", tones(1, 2))
    rows, _ = scanned(tmp_path, [])
    text = (folder / "metadata.yaml").read_text()
    (folder / "metadata.yaml").write_text(text.replace("program_num: 33", "program_num: 60"))
    again, looked_at = scanned(tmp_path, rows)
    assert (again[0].instrument, again[0].program, looked_at) == ("Brass", 60, [])


def test_what_could_not_be_read_is_looked_at_again(tmp_path: Path) -> None:
    write_track(tmp_path / "train/Track00001", tones(1, 2))
    rows, _ = scanned(tmp_path, [])
    unread = [replace(rows[0], digest="", reason="unreadable"), rows[1]]
    assert scanned(tmp_path, unread) == (rows, [rows[0].path])


def test_the_scan_serves_every_recipe(tmp_path: Path) -> None:
    """What does not reach the measures does not name the scan."""
    trimmed = Target(RATE, 2, Audio(unequal="trim"))
    assert scan_key(trimmed) == scan_key(TARGET) != scan_key(Target(RATE, 2, Audio(max_length_s=9.0)))


def test_a_scan_for_another_codec_or_a_broken_table_does_not_count(tmp_path: Path) -> None:
    table = tmp_path / "scan.parquet"
    assert read_scan(table, "x") == []
    rows, _ = scanned(write_corpus(tmp_path / "corpus", train=1), [])
    write_scan(rows, table, scan_key(TARGET))
    assert read_scan(table, scan_key(Target(48000, 2, Audio()))) == []
    table.write_bytes(table.read_bytes()[:100])
    assert read_scan(table, scan_key(TARGET)) == []


def test_limits_of_a_source(tmp_path: Path) -> None:
    folder = write_track(tmp_path / "Track00001", tones(1, 1, rate=16000), rate=16000, suffix="wav")
    path = folder / "stems" / "S00.wav"
    assert load_stem(path, TARGET) == Reject(
        "rate", "16000 Hz, the codec's rate is 44100 Hz; allow it: --set audio.resample=true"
    )
    loaded = load_stem(path, Target(RATE, 2, Audio(resample=True)))
    assert not isinstance(loaded, Reject) and loaded[0].shape == (2, 3 * RATE) and loaded[1:] == (16000, 1)
    too_long = load_stem(path, Target(16000, 2, Audio(max_length_s=2.0)))
    assert isinstance(too_long, Reject) and too_long.reason == "too_long"
