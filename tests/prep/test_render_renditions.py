"""Renditions of rendered songs: what is drawn, what is written, what is heard and when."""

import json
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from numpy.typing import NDArray

from prep.cli import main
from prep.compose import compose
from prep.config import Augment
from prep.draws import rng_for
from prep.errors import PrepError
from prep.midi import Song, read_song, transposed
from prep.render import default_soundfont, render_corpus
from prep.render_summary import RenderSummary
from prep.renditions import draw_renditions
from prep.sources.slakh import read_slakh
from prep.stages.augment import Augmentation, draw_augmentation
from prep.stages.render import render
from tests.prep.built import work_here
from tests.prep.test_render import digests
from tests.prep.test_render_stage import OCARINA, PIANO, RATE, pitch_hz, tone, write

pytestmark = pytest.mark.usefixtures("fluidsynth")

ALWAYS = Augment(speed_probability=1.0, pitch_probability=1.0)
WOODBLOCK = 115
KIT = 128


def run(midi: Path, out: Path, **options: Any) -> RenderSummary:
    return render_corpus(midi, out, progress=False, **({"workers": 1, "renditions": 2, "augment": ALWAYS} | options))


@pytest.fixture(scope="module")
def midi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("midi")
    compose(folder, 3, seed=1, short=True)
    return folder


@pytest.fixture(scope="module")
def corpus(midi: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RenderSummary]:
    out = tmp_path_factory.mktemp("corpus")
    return out, run(midi, out)


def metadata_of(track: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((track / "metadata.yaml").read_text()))


def song_of(path: Path) -> Song:
    song = read_song(path)
    assert isinstance(song, Song)
    return song


def test_training_songs_have_renditions_and_no_others(corpus: tuple[Path, RenderSummary], midi: Path) -> None:
    out, summary = corpus
    (original,) = (path for path in (out / "train").iterdir() if "_" not in path.name)
    assert sorted(path.name for path in out.glob("*/*_r*")) == [f"{original.name}_r1", f"{original.name}_r2"]
    assert {path.parent.name for path in out.glob("*/*_r*")} == {"train"}
    assert summary.renditions == 2 and summary.rendered == {"train": 1, "validation": 1, "test": 1}
    assert "3 of 3 songs: 1 train, 1 validation, 1 test and 2 renditions; " in summary.lines()[0]
    # the originals are what they are without renditions
    plain = out.with_name("plain")
    run(midi, plain, renditions=0)
    with_more = digests(out)
    assert {k: v for k, v in digests(plain).items() if k != "render.json"}.items() <= with_more.items()


def test_a_rendition_says_what_it_is_and_its_files_what_is_heard(corpus: tuple[Path, RenderSummary]) -> None:
    for k in (1, 2):
        (track,) = (corpus[0] / "train").glob(f"*_r{k}")
        original = track.with_name(track.name.removesuffix(f"_r{k}"))
        metadata, plain = metadata_of(track), metadata_of(original)
        assert metadata["rendition_of"] == original.name and "rendition_of" not in plain
        drawn = draw_augmentation(ALWAYS, rng_for(0, plain["UUID"], f"rendition:{k}"))
        done = Augmentation.from_json(metadata["augmentation"])
        assert done == Augmentation(speed=drawn.speed, semitones=drawn.semitones) != Augmentation()
        assert metadata.keys() - plain.keys() == {"rendition_of", "augmentation"}
        assert {n: s["program_num"] for n, s in metadata["stems"].items()} == {
            n: s["program_num"] for n, s in plain["stems"].items()
        }
        wanted, _ = transposed(song_of(original / "all_src.mid"), int(done.semitones), done.speed, False)
        whole = song_of(track / "all_src.mid")
        for i, part in enumerate(wanted.parts):
            (alone,) = song_of(track / "MIDI" / f"S{i:02d}.mid").parts
            for written in (whole.parts[i], alone):
                assert heard(written) == pytest.approx(heard(part), abs=1e-3)
    multitracks, rejected = read_slakh(corpus[0])
    assert rejected == []
    assert [bool(found.original) for found in multitracks if found.split == "train"] == [False, True, True]


def heard(part: Any) -> NDArray[np.float64]:
    rows = sorted((e.time_s, e.message.note) for e in part.events if e.message.type == "note_on")
    return np.array(rows, np.float64)


def test_workers_and_interruptions_do_not_change_a_byte(
    corpus: tuple[Path, RenderSummary], midi: Path, tmp_path: Path
) -> None:
    again = run(midi, tmp_path, workers=2)
    assert digests(tmp_path) == digests(corpus[0])
    same = ("rendered", "renditions", "stems", "audio_s", "silent", "fallbacks", "folded")
    assert [getattr(again, name) for name in same] == [getattr(corpus[1], name) for name in same]
    # as if killed while a rendition was written
    (victim,) = (tmp_path / "train").glob("*_r1")
    partial = victim.rename(victim.with_name(f".{victim.name}.partial"))
    (partial / "mix.flac").unlink()
    (tmp_path / "render.json").write_text(
        json.dumps({"fingerprint": json.loads((tmp_path / "render.json").read_text())["fingerprint"]})
    )
    run(midi, tmp_path)
    assert {k: v for k, v in digests(tmp_path).items() if k != "render.json"} == {
        k: v for k, v in digests(corpus[0]).items() if k != "render.json"
    }
    assert run(midi, tmp_path).already_done


def test_an_output_without_renditions_is_recognised_and_not_mixed(midi: Path, tmp_path: Path) -> None:
    run(midi, tmp_path, renditions=0)
    receipt = json.loads((tmp_path / "render.json").read_text())
    # nothing that a receipt from before there were renditions lacks is asked for
    assert receipt["fingerprint"].keys() == {"format", "midi", "soundfonts", "channels", "seed", "fluidsynth"}
    for row in receipt["songs"].values():
        del row["folded"]
    (tmp_path / "render.json").write_text(json.dumps(receipt))
    assert run(midi, tmp_path, renditions=0, augment=Augment(max_semitones=7)).already_done
    with pytest.raises(PrepError, match=r"holds another rendering .*renditions.* Choose another OUT"):
        run(midi, tmp_path)


def test_settings_that_make_other_renditions_are_another_rendering(
    corpus: tuple[Path, RenderSummary], midi: Path
) -> None:
    with pytest.raises(PrepError, match="holds another rendering"):
        run(midi, corpus[0], augment=ALWAYS.model_copy(update={"max_semitones": 3}))
    assert run(midi, corpus[0], augment=ALWAYS.model_copy(update={"eq_probability": 0.0})).already_done


def test_a_rendition_has_other_voices_where_there_are_some(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "midi" / f"{number}.mid", *(tone(OCARINA + i, i, ms=100 + number) for i in range(6)))
    fonts = [default_soundfont()]
    for name in ("Second.sf2", "Third.sf2"):
        (tmp_path / name).symlink_to(default_soundfont())
        fonts.append(tmp_path / name)
    run(tmp_path / "midi", tmp_path / "out", soundfonts=fonts, renditions=3)
    drawn = set()
    for track in (tmp_path / "out" / "train").glob("*_r*"):
        plain = metadata_of(track.parent / metadata_of(track)["rendition_of"])["stems"]
        for name, stem in metadata_of(track)["stems"].items():
            assert stem["plugin_name"] != plain[name]["plugin_name"]
            drawn.add((plain[name]["plugin_name"], stem["plugin_name"]))
    # each of the two others is met
    assert len(drawn) == 6


def test_a_draw_that_changes_nothing_is_drawn_again_where_it_would_be_a_copy() -> None:
    often = Augment(speed_probability=0.3, pitch_probability=0.3)
    many = [draw_renditions(often, 1, 0, f"{i}", same)[0] for same in (True, False) for i in range(100)]
    assert sum(augmentation == Augmentation() for augmentation in many[:100]) == 0
    assert 30 < sum(augmentation == Augmentation() for augmentation in many[100:]) < 70
    changed = [(again, once) for again, once in zip(many[:100], many[100:], strict=True) if once != Augmentation()]
    assert all(again == once for again, once in changed)
    never = Augment(speed_probability=0.0, pitch_probability=0.0)
    assert draw_renditions(never, 2, 0, "a", same=True) == (Augmentation(), Augmentation())


def test_a_rendition_that_cannot_be_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_here(monkeypatch)
    monkeypatch.setattr("prep.renditions.MAX_S", 1.0)
    write(tmp_path / "midi" / "long.mid", tone(WOODBLOCK, 0), tone(OCARINA, 1))
    write(tmp_path / "midi" / "low.mid", tone(PIANO, 0, ms=100, pitch=2), tone(OCARINA, 1, ms=100))
    slower = Augment(speed_probability=1.0, max_speed=1.0, pitch_probability=1.0, max_semitones=12)
    summary = run(tmp_path / "midi", tmp_path / "out", renditions=4, augment=slower)
    tracks = {path.name for path in (tmp_path / "out" / "train").iterdir()}
    # in order of their names, long comes first
    assert tracks == {"Track00001", "Track00002", *(f"Track00002_r{k}" for k in range(1, 5))}
    assert [name for name, _ in summary.left_out] == [f"Track00001_r{k}" for k in range(1, 5)]
    assert summary.renditions == 4 and {reject.reason for _, reject in summary.left_out} == {"too_long"}
    assert sum(line.startswith("left out: Track00001_r") and "too_long" in line for line in summary.lines()) == 4
    lowered = [metadata_of(tmp_path / "out" / "train" / f"Track00002_r{k}")["augmentation"] for k in range(1, 5)]
    assert summary.folded == sum(Augmentation.from_json(text).semitones < -2 for text in lowered) > 0
    assert f"{summary.folded} notes of renditions would have left MIDI's range" in "\n".join(summary.lines())
    again = run(tmp_path / "midi", tmp_path / "out", renditions=4, augment=slower)
    assert again.already_done and (again.left_out, again.folded) == (summary.left_out, summary.folded)


def test_a_song_that_is_left_out_has_no_renditions(tmp_path: Path) -> None:
    silent = mido.Message("control_change", control=7, value=0)
    write(tmp_path / "midi" / "a.mid", tone(OCARINA, 0), tone(OCARINA, 1, silent))
    summary = run(tmp_path / "midi", tmp_path / "out")
    assert [reject.reason for _, reject in summary.rejected] == ["silent"] and summary.renditions == 0
    assert summary.left_out == () and not list((tmp_path / "out").glob("*/*"))


@pytest.mark.parametrize("speed", [0.83, 1.2])
def test_onsets_lie_where_the_factor_puts_them(tmp_path: Path, speed: float) -> None:
    """Knocks, the last one ten minutes into the rendition; the first, at 0, shows how long one takes to be heard."""
    ms = [0, 1000, 60_250, round(601_333 * speed)]
    knocks = [m for at, last in zip(ms, [0, *ms], strict=False) for m in knock(at - last - (30 if at > last else 0))]
    song = song_of(write(tmp_path / "a.mid", [mido.Message("program_change", channel=9), *knocks], tone(OCARINA, 1)))
    changed, _ = transposed(song, 2, speed, pitch_drums=False)
    drums = next(part for part in changed.parts if part.program == KIT)
    stem = render([drums], [default_soundfont()], 1).stems[0, 0]
    onsets = [first_heard(stem, at / 1000 / speed - 0.2) for at in ms]
    alone = onsets[0]
    assert 0 <= alone < 0.02
    assert np.array(onsets) - alone == pytest.approx([at / 1000 / speed for at in ms], abs=0.005)
    # FluidSynth's block of 64 samples is all that is lost
    assert np.array(onsets) - alone == pytest.approx([at / 1000 / speed for at in ms], abs=65 / RATE)
    assert onsets[-1] > 600


def knock(wait: int) -> list[Any]:
    first, off = tone(0, 9, pitch=76, ms=30)[1:]
    return [first.copy(time=wait), off]


def first_heard(stem: NDArray[np.float32], after_s: float) -> float:
    start = max(0, round(after_s * RATE))
    piece = np.abs(stem[start : start + RATE // 2])
    return float(start + np.argmax(piece > 0.05 * piece.max())) / RATE


def test_pitch_is_as_drawn(tmp_path: Path) -> None:
    song = song_of(write(tmp_path / "a.mid", tone(OCARINA, 0), tone(0, 9, pitch=76)))
    heard_hz = []
    for semitones in (0, 4, -4):
        changed, _ = transposed(song, semitones, 0.9, pitch_drums=False)
        stems = render(changed.parts, [default_soundfont()] * 2, 1).stems
        heard_hz.append([pitch_hz(stems[0], 0.2, 0.9), pitch_hz(stems[1], 0.0, 0.2)])
    (melody, drums), up, down = heard_hz
    assert up == pytest.approx([melody * 2 ** (4 / 12), drums], rel=0.003)
    assert down == pytest.approx([melody * 2 ** (-4 / 12), drums], rel=0.003)


def test_the_command(midi: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("augment: {speed_probability: 1.0, renditions: 9}\n")
    words = ["render", midi, tmp_path / "out", "--renditions", 1, "--workers", 1, "--config", tmp_path / "recipe.yaml"]
    more = ["--set", "augment.min_speed=1.0", "--set", "augment.max_speed=1.5", "--set", "augment.pitch_drums=true"]
    done = CliRunner().invoke(main, [str(word) for word in words + more])
    assert done.exit_code == 0 and "and 1 renditions" in done.output, done.output
    (track,) = (tmp_path / "out" / "train").glob("*_r1")
    augmentation = Augmentation.from_json(metadata_of(track)["augmentation"])
    assert augmentation.speed > 1.0 and augmentation.pitch_drums
    wrong = CliRunner().invoke(main, [str(word) for word in [*words, "--set", "augment.speed=2"]])
    assert wrong.exit_code == 1 and "augment.speed is no setting" in wrong.output and wrong.output.count("\n") == 1
