import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import ShardError, finished, read_receipt, write_shard
from shards.receipt import npy_header, npy_size
from tests.shards.made import example


@pytest.mark.parametrize("shape", [(3, 20, 128), (0, 7, 8), (9, 100_000), (10**12, 10**12, 10**12)])
def test_the_npy_header_is_numpys(shape: tuple[int, ...]) -> None:
    header = io.BytesIO(npy_header(shape))
    assert np.lib.format.read_magic(header) == (1, 0)
    assert np.lib.format.read_array_header_1_0(header) == (shape, False, np.dtype("<f2"))
    assert header.tell() == 128 == npy_size(shape) - 2 * math.prod(shape)


def _written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "train-000000.tar"
    return path, write_shard(path, [example("a"), example("b")], {}).to_json()


def _set(value: dict[str, Any], *keys: Any, to: Any) -> None:
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = to


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (("format",), 2, "format is 2; this program reads 3"),
        (("blocks",), [], "0 block digests for"),
        (("bytes",), "many", "not a valid receipt"),
        (("examples",), None, "not a valid receipt"),
        (("statistics",), {"stem": {}}, "no 'mix'"),
        (("examples", 0, "id"), "../a", "does not match"),
        (("examples", 1, "members", "json"), [10**9, 4], r"b\.json lies outside the tar"),
        (("examples", 1, "members", "json"), [1000, 10**9], r"b\.json lies outside the tar"),
        (("examples", 1, "members", "json"), [-4, 4], r"b\.json lies outside the tar"),
        (("examples", 1, "members"), {}, "no 'json'"),
        (
            ("examples", 0, "shapes", "mixes.npy"),
            [10**9, 12, 8],
            r"a\.mixes\.npy has .* not shape \(1000000000, 12, 8\)",
        ),
        (("examples", 0, "shapes", "stems.npy"), [-3, -12, 8], r"a\.stems\.npy has .* not shape"),
        (("examples", 0, "shapes", "levels.npy"), [], "not a valid receipt"),
        (("examples", 0, "streams"), ["one"], r"a has 1 streams and levels of shape \(5, 60\)"),
    ],
)
def test_a_wrong_receipt_is_refused_by_name(tmp_path: Path, keys: tuple[Any, ...], to: Any, message: str) -> None:
    path, value = _written(tmp_path)
    _set(value, *keys, to=to)
    path.with_suffix(".json").write_text(json.dumps(value))
    with pytest.raises(ShardError, match=message) as caught:
        read_receipt(path)
    assert "train-000000.json" in str(caught.value) and "run the same `prep build` again" in str(caught.value)
    assert finished(path) is None


def test_a_missing_or_truncated_receipt(tmp_path: Path) -> None:
    path, _ = _written(tmp_path)
    receipt = path.with_suffix(".json")
    receipt.write_bytes(receipt.read_bytes()[:-20])
    with pytest.raises(ShardError, match=r"not a whole JSON object .*; delete it and run the same"):
        read_receipt(path)
    receipt.write_text("[" * 100_000)
    with pytest.raises(ShardError, match="not a whole JSON object"):
        read_receipt(path)
    receipt.unlink()
    with pytest.raises(ShardError, match="is missing; copy it again"):
        read_receipt(path)
    assert finished(path) is None


def test_a_tar_cut_short_is_not_finished(tmp_path: Path) -> None:
    path, _ = _written(tmp_path)
    assert finished(path) == read_receipt(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert finished(path) is None
    path.unlink()
    assert finished(path) is None
