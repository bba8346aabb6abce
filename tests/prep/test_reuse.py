"""Equal digests are equal bytes: what changes a stream changes its digest, and what does not leaves it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from prep.codecs import CodecIdentity
from prep.config import Augment, Instruments, Loudness, Mixing, PrepConfig
from prep.plan import PlanRow, make_plan
from prep.reuse import audio_digests, stream_digests
from prep.scan import Target
from tests.prep.built import files, run
from tests.prep.made import RATE, tone, tones, write_corpus, write_track
from tests.prep.test_plan import BYTES, song

IDENTITY = CodecIdentity("made", "a", "w", "float32", RATE, 2, 4096, 8, True, 0)
ALWAYS = Augment(renditions=1, speed_probability=1.0, pitch_probability=1.0)


def digests_of(row: PlanRow, config: PrepConfig, identity: CodecIdentity = IDENTITY) -> tuple[str, ...]:
    target = Target(identity.sample_rate, identity.channels, config.audio)
    return stream_digests(audio_digests(row, config, target), identity)


def planned(**settings: object) -> tuple[PlanRow, PrepConfig]:
    config = PrepConfig(**settings)  # type: ignore[arg-type]
    return make_plan(song("a", 4), config, BYTES).rows[0], config


def test_each_stream_has_a_digest_of_its_own() -> None:
    row, config = planned()
    digests = digests_of(row, config)
    assert len(set(digests)) == len(digests) == len(row.stems) + len(row.mixes)
    assert digests_of(row, config) == digests
    for other in (replace(IDENTITY, weights="other"), replace(IDENTITY, dtype="bfloat16")):
        assert not set(digests_of(row, config, other)) & set(digests)


def test_a_stem_reaches_the_mixes_that_hold_it_and_no_other() -> None:
    row, config = planned()
    before = digests_of(row, config)
    after = digests_of(replace(row, digests=(("other",), *row.digests[1:])), config)
    members = [*((i,) for i in range(4)), *row.mixes]
    assert [a != b for a, b in zip(before, after, strict=True)] == [0 in each for each in members]


@pytest.mark.parametrize(
    ("settings", "stems", "mixes"),
    [
        ({"loudness": Loudness(mix_lufs=-20.0)}, False, True),
        ({"loudness": Loudness(ceiling_db=-1.0)}, True, True),
        ({"loudness": Loudness(true_peak=True)}, True, True),
        ({"max_bad_fraction": 0.5}, False, False),
    ],
)
def test_settings_reach_what_they_decide(settings: dict[str, object], stems: bool, mixes: bool) -> None:
    (row, config), (other_row, other_config) = planned(), planned(**settings)
    before, after = digests_of(row, config), digests_of(other_row, other_config)
    assert (before[:4] != after[:4], before[4:] != after[4:]) == (stems, mixes)


def test_the_order_of_summing_is_part_of_a_mix() -> None:
    """Float sums depend on it, in their last bits."""
    row, config = planned(mixing=Mixing(size_law="all"))
    swapped = replace(row, digests=row.digests[::-1], mixes=row.mixes[::-1], offsets_db=row.offsets_db[::-1])
    assert set(digests_of(row, config)[4:]).isdisjoint(digests_of(swapped, config)[4:])


def test_one_gain_for_all_hangs_on_which_stems_are_drums(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    settings = {"augment": ALWAYS, "loudness": Loudness(policy="as_recorded")}
    run(root, out, codec, **settings)
    metadata = root / "train/Track00001/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("is_drum: true", "is_drum: false").replace("128", "1"))
    run(root, out, codec, **settings)
    run(root, tmp_path / "fresh", codec, **settings)
    assert files(tmp_path / "fresh").items() <= files(out).items()


def test_a_mono_and_a_stereo_file_are_one_rendition(tmp_path: Path, codec: str) -> None:
    """A sum of them once lay in memory by columns, and was stretched as if by rows."""
    audio = {"S00": tone(1, 4.0), "S01": tone(2), "S02": tone(3), "S03": tone(4), "S04": 0.2 * tone(5)}
    for name, channels in (("mono", 1), ("stereo", 2)):
        folder = write_track(tmp_path / name / "train/Track00001", audio)
        sf.write(folder / "stems/S00.flac", np.repeat(audio["S00"][:, None], channels, axis=1), RATE)
        sf.write(folder / "stems/S04.flac", np.stack([audio["S04"]] * 2, axis=1), RATE)
        run(tmp_path / name, tmp_path / f"{name}_out", codec, augment=ALWAYS, instruments=Instruments(group_by="class"))
    mono, stereo = (
        {path[-16:]: data for path, data in files(tmp_path / f"{n}_out").items()} for n in ("mono", "stereo")
    )
    tars = [path for path in mono if path.endswith(".tar")]
    assert tars and all(mono[path] == stereo[path] for path in tars)


def test_stems_of_one_song_make_no_other(tmp_path: Path, codec: str) -> None:
    """Names and ids that a rendition or a class might take."""
    root = tmp_path / "corpus"
    write_track(root / "train/Track00001", tones(1))
    write_track(root / "train/Track00001-r1", tones(5))
    write_track(root / f"train/Track00002_{'x' * 69}", tones(9))
    write_track(root / "train/Track00003", tones(13) | {"Bass": tone(20)})
    metadata = root / "train/Track00003/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("  Bass:\n", "  Nobody:\n"))
    report = run(root, tmp_path / "out", codec, augment=ALWAYS, instruments=Instruments(group_by="class"))
    assert report.index["counts"]["renditions"] == 4
    assert report.index["counts"]["used"] == 17
