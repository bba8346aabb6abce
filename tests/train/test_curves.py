import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes

from train.cli import main
from train.curves import draw
from train.errors import RunError


def write(run: Path, steps: int) -> Path:
    rows = [
        {"step": n, "gamma": 2.0 * n, "advantage": -1.0} | ({"r1": 5.0} if n % 4 == 0 else {}) for n in range(steps)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 10')  # being written
    return run


def test_points_are_means_of_a_hundredth_of_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    plot = Axes.plot

    def keep(self: Axes, x: list[float], y: list[float], label: str) -> list:
        drawn[label] = (list(x), list(y))
        return plot(self, x, y, label=label)

    monkeypatch.setattr(Axes, "plot", keep)
    draw(write(tmp_path, 1000), tmp_path / "curves.png")
    assert drawn.keys() == {"advantage", "gamma", "r1"}
    assert drawn["gamma"] == ([10 * n + 4.5 for n in range(100)], [20 * n + 9.0 for n in range(100)])
    assert set(drawn["r1"][1]) == {5.0} and len(drawn["r1"][0]) == 100
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_one_step_can_be_drawn(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["curves", str(write(tmp_path, 1)), "--out", str(tmp_path / "new/curves.png")])
    assert done.exit_code == 0 and (tmp_path / "new/curves.png").stat().st_size > 1000


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl is not there, or empty\. Name the --run"):
        draw(tmp_path, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []
