import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from prep.config import Audio
from prep.errors import Reject
from prep.multitrack import Multitrack
from prep.scan import ScanRow, Target, load_stem, read_scan, scan, scan_key, write_scan
from prep.sources.slakh import read_slakh
from prep.stages.activity import levels_db
from prep.stages.loudness import integrated_lufs
from tests.prep.made import RATE, tone, tones, write_corpus, write_track

TARGET = Target(RATE, 2, Audio())


def scanned(root: Path, earlier: list[ScanRow], target: Target = TARGET) -> tuple[list[ScanRow], list[str]]:
    """The rows, and which multitracks were decoded for them."""
    decoded: list[str] = []

    def run(function: Callable[[Multitrack], list[ScanRow]], items: list[Multitrack]) -> Iterator[list[ScanRow]]:
        decoded.extend(item.id for item in items)
        return map(function, items)

    multitracks, _ = read_slakh(root)
    return [row for rows in scan(multitracks, root, target, earlier, run) for row in rows], decoded


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
    assert rows[0].loudness_lufs == integrated_lufs(audio, RATE)
    assert integrated_lufs(audio, RATE) == pytest.approx(integrated_lufs(audio[:1], RATE) + 3.01, abs=0.01)
    np.testing.assert_allclose(rows[0].levels_db, levels_db(audio, RATE), atol=0.1)


def test_what_has_not_changed_is_not_decoded_again(tmp_path: Path) -> None:
    root, table = write_corpus(tmp_path / "corpus"), tmp_path / "scan.parquet"
    rows, decoded = scanned(root, [])
    assert len(decoded) == 4
    write_scan(rows, table, scan_key(TARGET))
    earlier = read_scan(table, scan_key(TARGET))
    assert earlier == rows
    assert scanned(root, earlier) == (rows, [])
    os.utime(root / rows[0].path, ns=(1, 1))
    assert scanned(root, earlier)[1] == [rows[0].id]
    write_track(root / "train/Track00009", tones(4, 2))
    assert "track00009" in scanned(root, earlier)[1]


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
