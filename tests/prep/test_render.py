"""What stands in the Track folders, whatever the MIDI, and that it is the same each time."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pyloudnorm
import pytest
import soundfile
import yaml

from prep.compose import compose
from prep.errors import PrepError
from prep.midi import Song, read_song
from prep.render import assign_splits, default_soundfont, render_corpus
from prep.render_summary import RenderSummary, SilentStem

RATE = 44100
PROGRAMS = (0, 19, 89)


pytestmark = pytest.mark.usefixtures("fluidsynth")


def write(path: Path, volumes: Sequence[int], seconds: float = 0.5) -> Path:
    """An instrument for each volume (0 to 127), each with one note."""
    midi = pretty_midi.PrettyMIDI()
    for program, volume in zip(PROGRAMS, volumes, strict=False):
        instrument = pretty_midi.Instrument(program)
        instrument.notes.append(pretty_midi.Note(90, 60, 0.0, seconds))
        instrument.control_changes.append(pretty_midi.ControlChange(7, volume, 0.0))
        midi.instruments.append(instrument)
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.write(str(path))
    return path


@pytest.fixture(scope="module")
def midi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("midi")
    compose(folder, 3, seed=1, short=True)
    return folder


@pytest.fixture(scope="module")
def corpus(midi: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RenderSummary]:
    out = tmp_path_factory.mktemp("corpus")
    return out, render_corpus(midi, out, workers=1, progress=False)


def tracks_of(out: Path) -> list[Path]:
    return sorted(out.glob("*/Track*"), key=lambda path: path.name)


def digests(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_and_metadata_are_slakhs(corpus: tuple[Path, RenderSummary], midi: Path) -> None:
    out, summary = corpus
    assert summary.songs == 3 and summary.rendered == {"train": 1, "validation": 1, "test": 1}
    assert [path.name for path in tracks_of(out)] == ["Track00001", "Track00002", "Track00003"]
    for number, track in enumerate(tracks_of(out), start=1):
        source = midi / f"song{number:05d}.mid"
        assert (track / "all_src.mid").read_bytes() == source.read_bytes()
        metadata = yaml.safe_load((track / "metadata.yaml").read_text())
        stems = metadata.pop("stems")
        gain = metadata.pop("overall_gain")
        assert 0.0 < gain <= 1.0
        assert metadata == {
            "UUID": hashlib.md5(source.read_bytes()).hexdigest(), "audio_dir": "stems", "midi_dir": "MIDI",
            "lmd_midi_dir": source.name, "normalization_factor": -13.0, "normalized": True, "target_peak": -1.0,
        }  # fmt: skip
        instruments = pretty_midi.PrettyMIDI(str(source)).instruments
        assert list(stems) == [f"S{i:02d}" for i in range(len(instruments))]
        for (name, stem), instrument in zip(stems.items(), instruments, strict=True):
            assert stem["program_num"] == (128 if instrument.is_drum else instrument.program)
            assert stem["is_drum"] == instrument.is_drum and stem["plugin_name"] == "TimGM6mb.sf2"
            assert stem["audio_rendered"] and stem["midi_saved"] and -60.0 < stem["integrated_loudness"] < 0.0
            expected = "Drums" if instrument.is_drum else pretty_midi.program_to_instrument_name(instrument.program)
            assert stem["midi_program_name"] == expected
            (saved,) = pretty_midi.PrettyMIDI(str(track / "MIDI" / f"{name}.mid")).instruments
            assert saved.is_drum == instrument.is_drum and len(saved.notes) == len(instrument.notes)


def test_stems_add_up_to_the_mix_and_never_clip(corpus: tuple[Path, RenderSummary]) -> None:
    for track in tracks_of(corpus[0]):
        mix, rate = soundfile.read(track / "mix.flac", dtype="int16", always_2d=True)
        files = sorted((track / "stems").glob("*.flac"))
        stems = [soundfile.read(path, dtype="int16", always_2d=True)[0] for path in files]
        assert rate == RATE and soundfile.info(track / "mix.flac").subtype == "PCM_16"
        assert {stem.shape for stem in stems} == {mix.shape} and mix.shape[1] == 1
        error = np.abs(np.sum(stems, axis=0, dtype=np.int64) - mix)
        assert error.max() <= (len(stems) + 1) / 2
        # -1 dBFS, and half a step for rounding
        assert max(np.abs(a.astype(int)).max() for a in (mix, *stems)) <= 32768 * 10 ** (-1 / 20) + 0.5


def test_levels_are_slakhs(corpus: tuple[Path, RenderSummary]) -> None:
    meter = pyloudnorm.Meter(RATE, filter_class="DeMan")
    for track in tracks_of(corpus[0]):
        gain_db = 20 * np.log10(yaml.safe_load((track / "metadata.yaml").read_text())["overall_gain"])
        for path in (track / "stems").glob("*.flac"):
            loudness = meter.integrated_loudness(soundfile.read(path)[0])
            assert loudness == pytest.approx(-13.0 + gain_db, abs=0.1)


def test_the_tail_is_kept(corpus: tuple[Path, RenderSummary]) -> None:
    for track in tracks_of(corpus[0]):
        song = read_song(track / "all_src.mid")
        assert isinstance(song, Song)
        mix, _ = soundfile.read(track / "mix.flac")
        after = mix[int(song.length_s * RATE) :]
        assert len(after) > 0.1 * RATE and np.abs(after[: RATE // 50]).max() > 1e-3
        assert np.abs(after[-32:]).max() < 2e-3


def test_a_second_run_does_nothing_and_a_broken_one_goes_on(
    corpus: tuple[Path, RenderSummary], midi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary = corpus
    before = digests(out)
    monkeypatch.setattr("prep.render.local", None)
    again = render_corpus(midi, out, workers=1, progress=False)
    assert again.already_done and "nothing was rendered" in "\n".join(again.lines())
    assert (again.stems, again.audio_s, again.silent, again.rejected) == (summary.stems, summary.audio_s, (), ())
    monkeypatch.undo()
    # as if the run had been killed: one folder half written, no record of the end
    victim = tracks_of(out)[1]
    partial = victim.rename(victim.with_name(f".{victim.name}.partial"))
    (partial / "mix.flac").unlink()
    fingerprint = (out / "render.json").read_text().partition(',\n "songs"')[0] + "}"
    (out / "render.json").write_text(fingerprint)
    render_corpus(midi, out, workers=1, progress=False)
    assert digests(out) == before


def test_an_output_is_never_mixed_with_another(corpus: tuple[Path, RenderSummary], midi: Path, tmp_path: Path) -> None:
    with pytest.raises(PrepError, match=r"holds another rendering .* Choose another OUT"):
        render_corpus(midi, corpus[0], channels=2, workers=1, progress=False)
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(PrepError, match=r"is not a rendering of `prep render`"):
        render_corpus(midi, tmp_path, workers=1, progress=False)


def test_bad_files_are_left_out_with_their_reason_and_the_rest_is_rendered(tmp_path: Path) -> None:
    source = tmp_path / "midi"
    write(source / "a" / "fine.mid", (100, 100, 0))
    write(source / "alone.mid", (100,))
    write(source / "mute.mid", (100, 0))
    write(source / "nothing.mid", ())
    (source / "torn.mid").write_bytes((source / "alone.mid").read_bytes()[:30])
    (source / "notes.txt").write_text("no MIDI, and not looked at")
    summary = render_corpus(source, tmp_path / "out", channels=2, workers=1, progress=False)
    assert summary.songs == 5 and summary.rendered == {"train": 1} and summary.stems == 2
    reasons = {path.name: reject.reason for path, reject in summary.rejected}
    assert reasons == {
        "alone.mid": "one_instrument",
        "mute.mid": "silent",
        "nothing.mid": "no_notes",
        "torn.mid": "corrupt_midi",
    }
    assert summary.silent == (SilentStem("Track00001", "S02", PROGRAMS[2]),)
    lines = "\n".join(summary.lines())
    assert "1 of 5 songs: 1 train; 2 stems" in lines and "Track00001/S02, program 89 has no sound" in lines
    assert "left out:" in lines and "mute.mid: silent 1 of 2 stems can be heard" in lines
    (track,) = tracks_of(tmp_path / "out")
    assert sorted(p.name for p in (track / "stems").iterdir()) == ["S00.flac", "S01.flac"]
    assert sorted(p.name for p in (track / "MIDI").iterdir()) == ["S00.mid", "S01.mid", "S02.mid"]
    metadata = yaml.safe_load((track / "metadata.yaml").read_text())
    assert metadata["lmd_midi_dir"] == "a/fine.mid"
    silent = metadata["stems"]["S02"]
    assert not silent["audio_rendered"] and silent["midi_saved"] and silent["plugin_name"] == "None"
    assert "integrated_loudness" not in silent
    assert soundfile.info(track / "mix.flac").channels == 2
    assert not list((tmp_path / "out").rglob("*partial*"))


def soundfont_without(program: int, path: Path) -> Path:
    """TimGM6mb with that preset moved to a bank that nobody asks for."""
    data = bytearray(default_soundfont().read_bytes())
    start = data.index(b"phdr") + 8
    # SoundFont 2.04, 7.2: 38 bytes a preset, a name of 20, then preset and bank as 16-bit words
    for at in range(start, start + int.from_bytes(data[start - 4 : start], "little"), 38):
        if int.from_bytes(data[at + 20 : at + 22], "little") == program:
            data[at + 22] = 99
    path.write_bytes(data)
    return path


def test_a_program_without_a_preset_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "midi" / "a.mid", (100, 100, 100))
    font = soundfont_without(PROGRAMS[1], tmp_path / "Poor.sf2")
    summary = render_corpus(tmp_path / "midi", tmp_path / "out", soundfonts=[font], workers=1, progress=False)
    assert summary.silent == (SilentStem("Track00001", "S01", PROGRAMS[1]),) and summary.stems == 2
    assert "Track00001/S01, program 19 has no sound" in "\n".join(summary.lines())


def test_soundfonts_are_drawn_by_stem(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "midi" / f"{number}.mid", (100, 100, 100), seconds=0.1 + 0.01 * number)
    other = tmp_path / "Other.sf2"
    other.symlink_to(default_soundfont())
    fonts = (default_soundfont(), other)
    drawn = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(drawn)}"
        render_corpus(tmp_path / "midi", out, soundfonts=fonts, workers=1, seed=seed, progress=False)
        metadata = [yaml.safe_load((track / "metadata.yaml").read_text())["stems"] for track in tracks_of(out)]
        drawn.append([stem["plugin_name"] for stems in metadata for stem in stems.values()])
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {"TimGM6mb.sf2", "Other.sf2"}


def test_splits_follow_the_content() -> None:
    many = {f"{i}.mid": hashlib.md5(bytes([i % 256, i // 256])).hexdigest() for i in range(2000)}
    splits = assign_splits(many)
    counts = {split: sum(s == split for s in splits.values()) for split in ("train", "validation", "test")}
    assert 1540 < counts["train"] < 1660 and 150 < counts["validation"] < 250 and 150 < counts["test"] < 250
    # a song keeps its split when others come and go, and a copy is where its original is
    fewer = dict(list(many.items())[:500])
    assert all(splits[name] == split for name, split in assign_splits(fewer).items())
    assert assign_splits(many | {"copy.mid": many["7.mid"]})["copy.mid"] == splits["7.mid"]


@pytest.mark.parametrize("size", range(1, 12))
def test_three_songs_or_more_fill_every_split(size: int) -> None:
    every = {"train", "validation", "test"} if size >= 3 else {"train"}
    for trial in range(60):
        songs = {f"{i}.mid": hashlib.md5(f"{trial}/{i}".encode()).hexdigest() for i in range(size)}
        assert set(assign_splits(songs | {"copy.mid": songs["0.mid"]}).values()) == every


def test_what_the_user_can_mend_is_said(midi: Path, tmp_path: Path) -> None:
    def run(source: Path = midi, **options: Any) -> None:
        render_corpus(source, tmp_path / "out", workers=1, progress=False, **options)

    with pytest.raises(PrepError, match=r"nowhere is not a folder. Pass a folder of .mid files"):
        run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepError, match=r"empty holds no .mid file"):
        run(tmp_path / "empty")
    with pytest.raises(PrepError, match=r"the SoundFont .*missing.sf2 does not exist"):
        run(soundfonts=[tmp_path / "missing.sf2"])
    (tmp_path / "bad.sf2").write_bytes(b"RIFF")
    with pytest.raises(PrepError, match=r"bad.sf2 is not a SoundFont\."):
        run(soundfonts=[tmp_path / "bad.sf2"])
    (tmp_path / "cut.sf2").write_bytes(default_soundfont().read_bytes()[:1000])
    with pytest.raises(PrepError, match=r"cut.sf2 is not a SoundFont that FluidSynth can load"):
        run(soundfonts=[tmp_path / "cut.sf2"])
    with pytest.raises(PrepError, match=r"channels is 6; it must be 1"):
        run(channels=6)
