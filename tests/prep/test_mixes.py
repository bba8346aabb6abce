"""More mixes for a dataset that is there, and streams that are copied instead of encoded again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from prep.config import Mixing, PrepConfig
from prep.draft import survey
from prep.errors import PrepError
from prep.ledger import write_ledger
from prep.mixes import add_mixes, costs_of
from prep.sources.slakh import read_slakh
from tests.prep.built import corpus_at, files, run
from tests.prep.made import save_small_codec, tones, write_corpus, write_track


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_track(tmp_path / "corpus/train/Track00008", tones(3, stems=6))
    return write_corpus(tmp_path / "corpus")


def streams(out: Path) -> dict[tuple[str, tuple[int, ...]], bytes]:
    """Latents, levels, gain and loudness of every stream, by example and members."""
    found = {}
    for record in shards.open(out):
        meta = record.meta
        latents = [*record["stems"], *record["mixes"]]
        for row, members in enumerate(meta["members"]):
            numbers = np.array([meta["gains_db"][row], meta["loudness_lufs"][row]])
            found[record.id, tuple(members)] = (
                latents[row].tobytes() + record["levels"][row].tobytes() + numbers.tobytes()
            )
    return found


def test_more_mixes_touch_nothing_that_is_there(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec, mixing=Mixing(subsets_per_target=1))
    before = streams(out)
    report = add_mixes(out, root, 3, workers=1, progress=False)
    after = streams(out)
    assert before.items() < after.items()
    assert report.work and report.work.encoded == len(after) - len(before)
    kept = [r for r in shards.open(out) if r.shard.listed.name in report.work.kept]
    assert report.work.copied == len(before) - sum(len(r.meta["members"]) for r in kept)
    assert shards.open(out).index["config"]["mixing"]["subsets_per_target"] == 4
    # and it is what a build with four from nothing gives, byte for byte
    run(root, tmp_path / "fresh", codec, mixing=Mixing(subsets_per_target=4))
    assert files(tmp_path / "fresh").items() <= files(out).items()


def test_only_what_the_last_build_used_gets_more(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    ids = shards.open(out).ids
    write_track(root / "train/Track00099", tones(5))
    add_mixes(out, root, 1, workers=1, progress=False)
    assert shards.open(out).ids == ids and len(read_slakh(root)[0]) == len(ids) + 1


def test_a_changed_stem_costs_its_own_streams(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    (root / "train/Track00001/metadata.yaml").touch()
    write_track(root / "train/Track00050", tones(20, stems=3))
    report = run(root, out, codec)
    added = next(record for record in shards.open(out) if record.id == "track00050")
    assert report.work and report.work.encoded == len(added.meta["members"])
    other_codec = run(root, out, save_small_codec(tmp_path, seed=5))
    assert other_codec.work and other_codec.work.copied == 0


def test_a_damaged_stream_is_not_copied(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec, mixing=Mixing(subsets_per_target=1))
    whole = streams(out)
    tar = next(out.glob("generations/*/train-000000.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    report = add_mixes(out, root, 1, workers=1, progress=False)
    assert whole.items() <= streams(out).items()
    assert report.work and 0 < report.work.copied < len(whole)  # of the other splits


def test_a_source_that_is_gone_is_missed_only_where_it_is_needed(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec, mixing=Mixing(subsets_per_target=4))
    (root / "train/Track00008/stems/S00.flac").unlink()
    with pytest.raises(PrepError, match=r"S00.flac has changed since it was scanned \(missing_audio\)"):
        add_mixes(out, root, 20, workers=1, progress=False)


@pytest.mark.parametrize("change", ["scan", "plan"])
def test_leftovers_of_another_build_are_refused(tmp_path: Path, codec: str, root: Path, change: str) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    (out / f"{change}.parquet").write_bytes(b"")
    function: Any = (lambda: add_mixes(out, root, 1, 1)) if change == "scan" else (lambda: costs_of(out))
    with pytest.raises(PrepError, match=f"{change}.parquet.*again"):
        function()


def test_costs_are_told(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    told = costs_of(out)
    assert len(told) >= 5


def test_a_scan_that_moved_on_is_refused(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    before = streams(out)
    write_track(tmp_path / "other", tones(30, stems=1))
    (tmp_path / "other/stems/S00.flac").replace(root / "train/Track00001/stems/S00.flac")
    survey(corpus_at(root), out, PrepConfig(codec=codec), workers=1, progress=False)
    with pytest.raises(PrepError, match=r"has been scanned again, or begun anew.*Run the same build first"):
        add_mixes(out, root, 1, workers=1, progress=False)
    assert streams(out) == before


def test_a_build_that_was_begun_anew_is_refused(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    ids = shards.open(out).ids
    corpus = corpus_at(root)
    fewer = survey(replace(corpus, multitracks=corpus.multitracks[:2]), out, PrepConfig(codec=codec), 1, False)
    write_ledger(fewer.ledger, out / "ledger.parquet")
    with pytest.raises(PrepError, match="begun anew"):
        add_mixes(out, root, 1, workers=1, progress=False)
    assert shards.open(out).ids == ids


def test_too_many_and_no_ledger_are_told(tmp_path: Path, codec: str, root: Path) -> None:
    out = tmp_path / "out"
    run(root, out, codec)
    with pytest.raises(PrepError, match=r"--add 63 makes 65 subsets a target; .* ends at 64"):
        add_mixes(out, root, 63, workers=1, progress=False)
    (out / "ledger.parquet").unlink()
    with pytest.raises(PrepError, match=r"ledger.parquet cannot be read. Run the same"):
        add_mixes(out, root, 1, workers=1, progress=False)
