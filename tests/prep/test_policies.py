"""Instrument classes and loudness policies, from the recipe to what is stored."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import shards
from prep.codecs import load_codec
from prep.config import Audio, Instruments, Loudness
from prep.stages.loudness import integrated_lufs, true_peak
from tests.prep.built import encode, run
from tests.prep.made import RATE, tone, tones, write_corpus, write_track

# programs of the made stems in their order: bass, piano, drums, strings, bass, piano
SIX = tones(2, stems=6)


def source(path: Path) -> np.ndarray:
    return np.repeat(sf.read(path, dtype="float32")[0][None], 2, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_track(tmp_path / "corpus/train/Track00009", {name: audio * 0.5 for name, audio in SIX.items()})
    return write_corpus(tmp_path / "corpus")


def song(out: Path) -> shards.Record:
    return next(record for record in shards.open(out) if record.id == "track00009")


def test_stems_of_a_class_are_summed_as_audio(tmp_path: Path, codec: str, root: Path) -> None:
    run(root, tmp_path / "out", codec, instruments=Instruments(group_by="class"))
    record = song(tmp_path / "out")
    assert record.meta["stems"] == ["Bass", "Piano", "Percussive", "Ensemble"] == record.meta["instruments"]
    folder = root / "train/Track00009/stems"
    bass = source(folder / "S00.flac") + source(folder / "S04.flac")
    gain = record.meta["gains_db"][0]
    assert gain == pytest.approx(-18 - integrated_lufs(bass, RATE), abs=1e-3)
    wanted = encode(load_codec(codec), bass * np.float32(10 ** (gain / 20)))
    np.testing.assert_allclose(record["stems"][0], wanted, atol=2e-2, rtol=2e-3)


def test_recorded_balance_is_kept(tmp_path: Path, codec: str, root: Path) -> None:
    stems = root / "train/Track00009/stems"
    for number, gain in enumerate((1.0, 0.5, 0.25, 0.1, 0.1, 0.05)):
        sf.write(stems / f"S{number:02d}.flac", 0.9 * gain * tone(2 + number) / 0.3, RATE)
    run(root, tmp_path / "out", codec, loudness=Loudness(policy="as_recorded"))
    record = song(tmp_path / "out")
    gains = record.meta["gains_db"][:6]
    assert max(gains) - min(gains) < 1e-9
    assert max(record.meta["loudness_lufs"][:6]) == pytest.approx(-18, abs=0.01)
    loud = Loudness(policy="as_recorded", stem_lufs=0.0)
    run(root, tmp_path / "loud", codec, loudness=loud)
    gains = song(tmp_path / "loud").meta["gains_db"][:6]
    peak = max(np.abs(source(stems / f"S{number:02d}.flac")).max() for number in range(6))
    assert max(gains) == min(gains) == pytest.approx(-20 * np.log10(peak), abs=1e-6)


@pytest.mark.parametrize("policy", ["equal", "as_recorded"])
def test_no_true_peak_passes_the_ceiling(tmp_path: Path, codec: str, policy: str) -> None:
    """A quarter of the rate, sampled at 45 degrees: true peaks lie 3 dB over those of the samples."""
    root = write_corpus(tmp_path / "corpus", train=1)
    wave = 0.5 * np.sin(np.pi / 2 * np.arange(3 * RATE) + np.pi / 4)
    audio = {f"S{i:02d}": (wave * gain).astype(np.float32) for i, gain in enumerate((1.0, 0.8))} | {"S02": tone(3)}
    write_track(root / "train/Track00009", audio)
    settings = Loudness(policy=policy, stem_lufs=0.0, mix_lufs=0.0, mix_offset_db=0.0, ceiling_db=-6.0, true_peak=True)  # type: ignore[arg-type]
    run(root, tmp_path / "out", codec, loudness=settings)
    record = song(tmp_path / "out")
    gains, folder = record.meta["gains_db"], root / "train/Track00009/stems"
    stems = [
        source(folder / f"{name}.flac") * np.float32(10 ** (g / 20)) for name, g in zip(audio, gains, strict=False)
    ]
    mixes = [
        sum(stems[i] for i in members) * np.float32(10 ** (gain / 20))
        for members, gain in list(zip(record.meta["members"], gains, strict=True))[3:]
    ]
    peaks = [20 * np.log10(true_peak(np.asarray(stream, np.float32), RATE)) for stream in stems + mixes]
    assert max(peaks[:2]) == pytest.approx(-6.0, abs=0.01) and max(peaks) <= -5.99
    assert 20 * np.log10(np.abs(stems[0]).max()) < -8.9


def test_classes_left_out_excluded_and_unknown(tmp_path: Path, codec: str, root: Path) -> None:
    metadata = root / "train/Track00009/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("program_num: 48", "program_num: 200"))
    choice = Instruments(allowed=["Bass", "Piano", "Percussive", "Unknown"], exclude_contexts=["Percussive"])
    report = run(root, tmp_path / "out", codec, instruments=choice)
    record = song(tmp_path / "out")
    assert record.meta["instruments"] == ["Bass", "Piano", "Percussive", "Unknown", "Bass", "Piano"]
    assert all(2 not in members for members in record.meta["members"][6:])
    text = "\n".join(report.lines())
    assert "class_not_allowed" in text and "class Unknown 1 stems: train/Track00009/stems/S03.flac (program -1)" in text
    pairs = shards.open(tmp_path / "out").index["pairs"]
    assert pairs["exclude_contexts"] == ["Percussive"] and pairs["exclude_targets"] == ["Vocal", "Unknown"]
    assert pairs["size_probabilities"][:2] == [[1.0], [0.5, 0.5]]


def test_a_file_that_is_in_two_splits_is_told(tmp_path: Path, codec: str) -> None:
    root = tmp_path / "leaking"
    write_track(root / "train/Track00001", tones(1, stems=3))
    write_track(root / "test/Track00002", tones(11, stems=3))
    assert "in two splits" not in "\n".join(run(root, tmp_path / "out", codec).lines())
    for name in ("S00", "S01"):
        (root / f"test/Track00002/stems/{name}.flac").write_bytes(
            (root / f"train/Track00001/stems/{name}.flac").read_bytes()
        )
    lines = run(root, tmp_path / "out", codec).lines()
    told = next(line for line in lines if "in two splits" in line)
    same = "test/Track00002/stems/S00.flac", "train/Track00001/stems/S00.flac"
    assert all(path in told for path in same) and "(2 such)" in told


def test_what_is_trimmed_is_levelled_by_what_is_left(tmp_path: Path, codec: str) -> None:
    root = tmp_path / "corpus"
    loud_later = np.concatenate([0.05 * tone(4), tone(4)])
    write_track(root / "train/Track00001", tones(1, stems=3) | {"S03": loud_later})
    run(root, tmp_path / "out", codec, audio=Audio(unequal="trim"))
    meta = shards.open(tmp_path / "out")[0].meta
    assert meta["samples"] == 3 * RATE
    np.testing.assert_allclose(meta["loudness_lufs"][:4], -18.0, atol=0.01)
