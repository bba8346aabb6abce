from pathlib import Path

import pytest

from shards import ShardError, current, history, roll_back, set_current
from shards.generations import atomic


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic(path) as file:
        file.write(b"half of the new")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_current_is_swapped_to_a_complete_generation(tmp_path: Path) -> None:
    for name in ("p0-c0", "p1-c0"):
        (tmp_path / "generations" / name).mkdir(parents=True)
        (tmp_path / "generations" / name / "dataset.json").write_text("{}")
        set_current(tmp_path, name)
        assert current(tmp_path) == name
    (tmp_path / "generations" / "p1-c0" / "dataset.json").unlink()
    with pytest.raises(ShardError, match=r"has no dataset\.json, so it is not complete; run the same `prep build`"):
        set_current(tmp_path, "p1-c0")
    with pytest.raises(ShardError, match=r"generation name is '\.\./p1'; it may hold"):
        set_current(tmp_path, "../p1")


def test_no_current(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="has no live generation"):
        current(tmp_path)
    (tmp_path / "current").mkdir()
    with pytest.raises(ShardError, match=r"current cannot be read \(Is a directory\)"):
        current(tmp_path)


def test_back_to_what_was_live_before(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "b"):
        (tmp_path / "generations" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "generations" / name / "dataset.json").write_text("{}")
        set_current(tmp_path, name)
    assert history(tmp_path) == ["b", "c", "a"]
    (tmp_path / "generations" / "c" / "dataset.json").unlink()  # pruned: passed over
    assert roll_back(tmp_path) == "a" == current(tmp_path)
    with pytest.raises(ShardError, match="no generation that was live before a, so nothing to go back to"):
        roll_back(tmp_path)
    set_current(tmp_path, "b")
    assert history(tmp_path) == ["b", "a"]
    assert roll_back(tmp_path) == "a"
