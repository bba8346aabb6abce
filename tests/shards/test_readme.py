"""The package's README is true: its programs run, in order, on a made dataset."""

import re
from pathlib import Path
from typing import Any

import pytest

import shards
from tests.shards.made import HEADER, example

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(shards.__file__).parent / "README.md").read_text(), re.S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_its_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out" / "slakh"
    folder.mkdir(parents=True)
    examples = [example(f"song-{number}", mixes=3, frames=300) for number in range(9)]
    shards.write_shard(folder / "train-000000.tar", examples, {})
    shards.write_index(folder, HEADER, {"train": ["train-000000.tar"]})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    names: dict[str, Any] = {}
    reading, loading, webdataset, writing = BLOCKS
    exec(reading, names)
    assert names["crop"].shape == (128, 8) and names["whole"].shape == (6, 1500)
    exec(loading, names)
    assert names["mix"].shape == names["target"].shape == (4, 128, 8)
    assert names["state"]["taken"] == 20 == -(-2 * 9 // 4) * 4 and len(names["loader"]) == 0
    exec(webdataset, names)
    batches = list(names["dataset"])
    assert sum(len(mix) for mix, _ in batches) == 9 * 16 and batches[0][0].shape == (128, 128, 8)
    one = examples[0]
    again = tmp_path / "again"
    again.mkdir()
    names |= {"folder": again, "header": HEADER, "digests": one.streams}
    exec(writing, names | {name: getattr(one, name) for name in ("meta", "stems", "mixes", "levels")} | {"id": one.id})
