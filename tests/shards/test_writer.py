import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import Example, ShardError, finished, read_receipt, write_shard
from tests.shards.made import DIM, example


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "one" / "train-000000.tar", tmp_path / "two" / "train-000000.tar"
    for path in (first, second):
        path.parent.mkdir()
    one = example("a")
    turned = replace(one, meta=dict(reversed(one.meta.items())), stems=np.asfortranarray(one.stems))
    write_shard(first, [one, example("b")], {"machine": "made"})
    write_shard(str(second), iter([turned, example("b")]), {"machine": "made"})
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".json").read_bytes() == second.with_suffix(".json").read_bytes()


def test_the_tar_is_plain_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    write_shard(path, [example("a"), example("b")], {})
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    wanted = [f"{name}.{end}" for name in "ab" for end in ("json", "stems.npy", "mixes.npy", "levels.npy")]
    assert [member.name for member in members] == wanted
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert path.read_bytes()[257:265] == b"ustar\x0000"


def test_the_receipt_tells_where_and_what(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    long = example("long", frames=2000)
    receipt = write_shard(path, [example("a"), long], {"machine": "made"})
    data = path.read_bytes()
    assert (receipt.bytes, receipt.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(receipt.blocks) == 8 * -(-len(data) // 65536) > 8
    assert receipt.blocks[8:16] == hashlib.sha256(data[65536:131072]).digest()[:8]
    entry = receipt.examples[1]
    offset, size = entry.members["mixes.npy"]
    mixes = np.load(io.BytesIO(data[offset : offset + size]), allow_pickle=False)
    np.testing.assert_array_equal(mixes, long.mixes)
    offset, size = entry.members["json"]
    assert json.loads(data[offset : offset + size]) == long.meta
    assert entry.shapes == {"stems.npy": (3, 2000, DIM), "mixes.npy": (2, 2000, DIM), "levels.npy": (5, 10000)}
    assert (entry.sources, entry.streams, entry.audio) == (long.sources, long.streams, long.audio)
    assert read_receipt(path) == receipt == read_receipt(path.with_suffix(".json"))
    on_disk = json.loads(path.with_suffix(".json").read_text())
    assert on_disk == receipt.to_json() and on_disk["format"] == 3


def test_statistics_are_the_sums_over_all_streams_frames(tmp_path: Path) -> None:
    examples = [example("a"), example("b", mixes=0, frames=5)]
    receipt = write_shard(tmp_path / "train-000000.tar", examples, {})
    frames = np.concatenate([item.stems.reshape(-1, DIM) for item in examples]).astype(np.float64)
    share = receipt.statistics["stem"]
    assert share["frames"] == len(frames)
    np.testing.assert_allclose(share["sum"], frames.sum(0), rtol=1e-12)
    np.testing.assert_allclose(share["sum_sq"], (frames**2).sum(0), rtol=1e-12)
    assert receipt.statistics["mix"]["frames"] == 2 * 12


def test_a_shard_of_nothing_is_a_receipt_without_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    write_shard(path, [example("a")], {})
    receipt = write_shard(path, [], {})
    assert not path.exists()
    assert (receipt.bytes, receipt.examples, receipt.statistics["stem"]["frames"]) == (0, (), 0)
    assert finished(path) == receipt


@pytest.mark.parametrize("name", ["train.tar", "train-0.tar", "Train-000000.tar", "train-000000.zip"])
def test_a_shards_name_is_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ShardError, match=r"named <split>-<6 digits>\.tar"):
        write_shard(tmp_path / name, [example("a")], {})


def _with_meta(**changes: Any) -> Example:
    return replace(example("a"), meta=example("a").meta | changes)


def _with_nan(name: str, value: float) -> Example:
    array = getattr(example("a"), name).copy()
    array[-1, -1] = value
    return replace(example("a"), **{name: array})


BAD = {
    "upper case": (replace(example("a"), id="Track00001"), r"'Track00001': its id does not match .* use lower case"),
    "dot": (replace(example("a"), id="a.b"), "does not match"),
    "climbing": (replace(example("a"), id="../a"), "does not match"),
    "too long": (replace(example("a"), id="a" * 81), "does not match"),
    "missing key": (
        replace(example("a"), meta={"id": "a"}),
        "missing or extra: augmentation, corpus, frames, gains_db",
    ),
    "extra key": (_with_meta(bpm=120), "missing or extra: bpm"),
    "int for float": (_with_meta(gains_db=[0, 0, 0, 1, 1]), r"gains_db is .* plain list of float"),
    "numpy float": (_with_meta(loudness_lufs=list(np.zeros(5))), "loudness_lufs is .* plain list of float"),
    "nan gain": (_with_meta(gains_db=[float("nan")] * 5), "gains_db is .*no NaN"),
    "true for int": (_with_meta(n_mixes=True), "n_mixes is True"),
    "few programs": (_with_meta(programs=[0]), "programs has 1 rows; n_stems 3"),
    "few gains": (_with_meta(gains_db=[0.0]), "a row for each of the 5 streams"),
    "few digests": (replace(example("a"), streams=("one",)), "streams and audio need a digest for each of the 5"),
    "another split": (_with_meta(split="test"), "of split test; the shard is of split train"),
    "another id": (_with_meta(id="b"), "its json says id b"),
    "stems' members": (_with_meta(members=[[0], [2], [1], [0, 1], [0, 1]]), r"must begin with the stems' own rows"),
    "mix of nothing": (_with_meta(members=[[0], [1], [2], [], [0, 1]]), "a row that is empty"),
    "mix of a stranger": (_with_meta(members=[[0], [1], [2], [0, 3], [0, 1]]), "names a stem that is not 0 … 2"),
    "no stems": (example("a", stems=0, mixes=0), "it has no stems"),
    "no frames": (example("a", frames=0), "frames and dim above 0"),
    "nan stems": (_with_nan("stems", np.nan), "stems holds NaN or infinity"),
    "infinite mixes": (_with_nan("mixes", np.inf), "mixes holds NaN or infinity"),
    "nan levels": (_with_nan("levels", np.nan), "levels holds NaN or infinity"),
    "float32": (replace(example("a"), stems=example("a").stems.astype(np.float32)), "stems is float32"),
    "short mixes": (replace(example("a"), mixes=example("a").mixes[:, :-1]), r"mixes has shape \(2, 11, 8\)"),
    "another dim": (replace(example("a"), mixes=example("a").mixes[..., :4]), r"mixes has shape \(2, 12, 4\)"),
    "flat": (replace(example("a"), stems=np.float16(0.0)), r"stems has shape \(\)"),
    "lost level row": (replace(example("a"), levels=example("a").levels[:4]), r"levels has shape \(4, 60\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_example_is_refused_by_name(tmp_path: Path, case: str) -> None:
    bad, message = BAD[case]
    with pytest.raises(ShardError, match=message) as caught:
        write_shard(tmp_path / "train-000000.tar", [example("good"), bad], {})
    assert "train-000000.tar: example" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_id_may_come_once(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="id a came twice"):
        write_shard(tmp_path / "train-000000.tar", [example("a"), example("a")], {})
