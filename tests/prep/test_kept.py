"""What `keep_audio` keeps: which samples, in which files, and what a build without it has of it (nothing)."""

import hashlib
import json
import resource
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import shards
from prep.codecs import load_codec
from prep.errors import PrepError
from prep.kept import Flac, flac_at, kept_in, new_files, packing, rounded
from prep.rebuild import rebuild
from prep.reuse import audio_digests
from prep.scan import Target
from tests.prep.built import encode, files, run, work_here
from tests.prep.made import RATE, save_small_codec, tone, tones, write_corpus, write_track
from tests.prep.test_reuse import planned

NOISE = np.random.default_rng(0).uniform(-1, 1, (2, 70000)).astype(np.float32)


def no_lap(stage: str) -> None:
    """Nobody takes the time."""


def written(path: Path, audio: np.ndarray, length: int = 30000) -> np.ndarray:
    """(channels, samples) to a FLAC, in pieces; what passes by."""
    stretches = ((0, audio[:, at : at + length]) for at in range(0, audio.shape[1], length))
    return np.concatenate([piece for _, piece in rounded(stretches, {0: path}, RATE, audio.shape[1], no_lap)], axis=1)


def test_what_is_kept_is_what_is_encoded(tmp_path: Path) -> None:
    loud = 1.01 * NOISE
    passed = written(tmp_path / "a.flac", loud)
    assert passed.dtype == np.float32 and passed.max() == 1 - 2**-23 and passed.min() == -1
    inside = np.abs(loud) < 1
    assert np.abs(passed - loud)[inside].max() <= 2**-24
    flac = flac_at(tmp_path / "a.flac")
    read = np.concatenate(list(flac.stretches(2, 70000, 16384)), axis=1)
    np.testing.assert_array_equal(read, passed)
    first = np.concatenate(list(flac.stretches(2, 1000, 400)), axis=1)
    np.testing.assert_array_equal(first, passed[:, :1000])
    with pytest.raises(ValueError, match="broadcast"):
        list(flac.stretches(2, 70001, 16384))
    # and audio that has 24 bits stays as it is
    np.testing.assert_array_equal(written(tmp_path / "b.flac", passed, 11111), passed)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()


def test_a_repeated_channel_is_kept_once(tmp_path: Path) -> None:
    mono = np.broadcast_to(NOISE[:1], NOISE.shape)
    passed = written(tmp_path / "a.flac", mono)
    assert passed.shape == mono.shape and sf.info(tmp_path / "a.flac").channels == 1
    read = np.concatenate(list(flac_at(tmp_path / "a.flac").stretches(2, 70000, 16384)), axis=1)
    np.testing.assert_array_equal(read, passed)


@pytest.mark.parametrize("spare", [100_000, 1000], ids=["midway", "at the end"])
def test_a_full_disk_is_told(tmp_path: Path, spare: int) -> None:
    """libsndfile says nothing of the last block."""
    written(tmp_path / "a.flac", NOISE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a.flac").stat().st_size - spare, hard))
    try:
        with pytest.raises(PrepError, match=r"b\.flac cannot be written; is the disk full"):
            written(tmp_path / "b.flac", NOISE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_a_killed_build_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for _ in range(2):
        paths = new_files(tmp_path, "a", [0])
        paths[0].write_bytes(b"flac")
        (tmp_path / "audio").mkdir(exist_ok=True)
        (tmp_path / "audio/.train-000000.tar.1.part").write_bytes(b"half")
    with packing(tmp_path / "audio/train-000000.tar", "made") as add:
        add([flac_at(paths[0])], ["digest"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["audio", "train-000000.json", "train-000000.tar"]
    assert kept_in(tmp_path) == {}
    (tmp_path / "audio").rename(tmp_path / "plan")
    (tmp_path / "audio").mkdir()
    (tmp_path / "plan").rename(tmp_path / "audio/plan")
    assert kept_in(tmp_path)["digest"].is_sound()


def test_a_tar_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def pack(path: Path) -> Iterator[None]:
        with packing(path, "made") as add:
            loose = new_files(tmp_path, "a", [0])[0]
            loose.write_bytes(b"flac")
            add([flac_at(loose)], ["digest"])
            yield

    with pytest.raises(RuntimeError, match="plug"):
        for _ in pack(tmp_path / "audio/train-000000.tar"):
            raise RuntimeError("pulled the plug")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_flacs_of_a_build(tmp_path: Path, codec: str) -> None:
    """A tar a shard: each stream's audio, of which the latents are made, and no more than plain tar and FLAC."""
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    stereo = {"S00": np.stack([tone(1), 0.5 * tone(2)]), "S01": tone(3), "S02": tone(4)}
    write_track(root / "train/Track00009", stereo)
    run(root, out, codec, keep_audio=True)
    dataset, model = shards.open(out), load_codec(codec)
    plan = dataset.index["plan"]
    assert shards.current(out).endswith("-kept") and dataset.index["config"]["keep_audio"] is True
    channels = {}
    for split in ("train", "validation", "test"):
        tar = out / "audio" / plan / f"{split}-000000.tar"
        receipt = json.loads(tar.with_suffix(".json").read_text())
        with tarfile.open(tar) as opened:
            infos = opened.getmembers()
        assert all((info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644) for info in infos)
        assert [info.name for info in infos] == [member["name"] for member in receipt["members"]]
        data = tar.read_bytes()
        for member in receipt["members"]:
            flac = data[member["offset"] :][: member["size"]]
            assert hashlib.sha256(flac).hexdigest() == member["sha256"]
            (tmp_path / "one.flac").write_bytes(flac)
            id, row, _ = member["name"].split(".")
            record = dataset[dataset.ids.index(id)]
            assert member["audio"] == record.entry.audio[int(row)]
            audio, _ = sf.read(tmp_path / "one.flac", dtype="float32", always_2d=True)
            channels[id, int(row)] = audio.shape[1]
            latents = np.concatenate([record["stems"][:], record["mixes"][:]])[int(row)]
            expanded = np.broadcast_to(audio.T, (2, len(audio)))
            np.testing.assert_array_equal(encode(model, expanded).astype(np.float16), latents)
    assert len(channels) == sum(len(record.entry.audio) for record in dataset)
    members = {record.id: record.meta["members"] for record in dataset}
    assert channels == {(id, row): 2 if id == "track00009" and 0 in members[id][row] else 1 for id, row in channels}


def test_a_build_without_it_is_as_it_was(tmp_path: Path, codec: str) -> None:
    """The digests are those of the release before there was `keep_audio`."""
    row, config = planned()
    digests = audio_digests(row, config, Target(44100, 2, config.audio))
    kept = audio_digests(row, config.model_copy(update={"keep_audio": True}), Target(44100, 2, config.audio))
    assert hashlib.sha256("".join(digests).encode()).hexdigest()[:16] == "1b0e41e1101b6dfb"
    assert not set(digests) & set(kept)
    run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", codec)
    assert not (tmp_path / "out/audio").exists()
    assert "keep_audio" not in shards.open(tmp_path / "out").index["config"]
    assert not any("-kept" in path for path in files(tmp_path / "out"))


def test_turned_on_later_all_is_encoded_again(tmp_path: Path, codec: str) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    before = files(out)
    report = run(root, out, codec, keep_audio=True)
    assert report.work and report.work.copied == 0 and report.work.encoded > 0
    assert before.items() <= files(out).items()
    run(root, tmp_path / "fresh", codec, keep_audio=True)
    assert files(tmp_path / "fresh").items() <= files(out).items()


def test_more_streams_than_files_may_be_open(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_track(tmp_path / "corpus/train/Track00001", tones(1, stems=6))
    other, stretches, now, most = save_small_codec(tmp_path, 1), Flac.stretches, list[str](), list[int]()
    run(tmp_path / "corpus", tmp_path / "out", codec, keep_audio=True)

    def watched(flac: Flac, *shape: int) -> Iterator[np.ndarray]:
        now.append(flac.name)
        most.append(len(now))
        try:
            yield from stretches(flac, *shape)
        finally:
            now.remove(flac.name)

    work_here(monkeypatch)  # other processes would not hear of it
    monkeypatch.setattr(Flac, "stretches", watched)
    monkeypatch.setattr("prep.kept.AT_ONCE", 2)
    monkeypatch.setattr("prep.example.AT_ONCE", 2)
    run(tmp_path / "corpus", tmp_path / "few", codec, keep_audio=True)
    assert files(tmp_path / "out") == files(tmp_path / "few")
    assert audio_files(tmp_path / "out") == audio_files(tmp_path / "few") != {}
    rebuild(tmp_path / "few", None, other, workers=1, progress=False)
    assert max(most) == 2 < len(most) and not now
    monkeypatch.setattr("prep.kept.AT_ONCE", 50)
    rebuild(tmp_path / "out", None, other, workers=1, progress=False)
    assert files(tmp_path / "out") == files(tmp_path / "few")


def audio_files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("audio/*/*")}


def test_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"0123456789")
    flac = Flac("a", path, 2, 5, hashlib.sha256(b"23456").hexdigest())
    assert flac.is_sound() and str(flac) == f"a in {path}"
    for data in (b"0123x56789", b"012345", b""):
        path.write_bytes(data)
        assert not flac.is_sound()
    path.unlink()
    assert not flac.is_sound()
