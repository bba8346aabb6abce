from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.made import CLASSES, DIM, identity_json, small
from train import checkpoint
from train.batches import Scale
from train.checkpoint import Checkpoint
from train.errors import RunError
from train.game import Game


def made() -> Checkpoint:
    game = Game.new(small(), DIM, len(CLASSES))
    scale = Scale(torch.arange(DIM).float(), torch.full((DIM,), 2.0))
    return Checkpoint(
        step=7,
        config=small(),
        codec=identity_json(),
        generation="p0-c0",
        classes=tuple(CLASSES),
        targets={"Bass": 3},
        mix_scale=scale,
        target_scale=scale,
        gamma=0.25,
        loader={"seed": 0, "taken": 11, "order": "shuffle of 9 indices"},
        generator=game.generator.state_dict(),
        average=game.average.state_dict(),
        discriminator=game.discriminator.state_dict(),
        generator_optimiser=game.generator_optimiser.state_dict(),
        discriminator_optimiser=game.discriminator_optimiser.state_dict(),
    )


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    saved = made()
    checkpoint.save(saved, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (loaded.step, loaded.config, loaded.codec, loaded.classes) == (7, small(), identity_json(), tuple(CLASSES))
    assert (loaded.gamma, loaded.loader, loaded.targets) == (0.25, saved.loader, {"Bass": 3})
    assert torch.equal(loaded.mix_scale.std, saved.mix_scale.std)
    assert loaded.generator_optimiser == saved.generator_optimiser
    assert all(torch.equal(loaded.generator[name], tensor) for name, tensor in saved.generator.items())
    mix, noise, instrument = torch.randn(1, 4, DIM), torch.randn(1, 4, 3), torch.tensor([1])
    assert torch.isfinite(loaded.player()(mix, noise, instrument)).all()


@pytest.mark.parametrize("room", [0, 50_000])
def test_a_full_disk_is_told_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """torch tells it in its own way where there is no room at all."""
    checkpoint.save(made(), tmp_path)

    class Full(BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(28, "No space left on device")
            return super().write(data)

    @contextmanager
    def full(path: Path) -> Iterator[BytesIO]:
        yield Full()

    monkeypatch.setattr(checkpoint, "atomic", full)
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be written \(.*\): is the disk full\?") as caught:
        checkpoint.save(replace(made(), step=8), tmp_path)
    assert "\n" not in str(caught.value) and checkpoint.load(tmp_path).step == 7


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    checkpoint.save(made(), tmp_path)
    (tmp_path / ".checkpoint.pt.0123abcd.part").write_bytes(b"half")
    checkpoint.resume(tmp_path, small(), identity_json(), "p0-c0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.yaml"]


def test_a_folder_without_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no checkpoint\.pt; `train fit CONFIG --data O --run .*` makes one"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_one_cut_short_is_told(tmp_path: Path, kept: int) -> None:
    checkpoint.save(made(), tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read \(.*\); delete it") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "step": Path("x")}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(tmp_path)


def test_a_run_goes_on_with_its_own_config_codec_and_data_only(tmp_path: Path) -> None:
    saved, config = made(), small()
    assert checkpoint.resume(tmp_path / "new" / "run", config, identity_json(), "p0-c0") is None
    checkpoint.save(saved, tmp_path)
    longer = small(loop={"steps": 99})
    resumed = checkpoint.resume(tmp_path, longer, identity_json(), "p0-c0")
    assert resumed is not None and resumed.step == 7
    assert "steps: 99" in (tmp_path / "config.yaml").read_text()

    with pytest.raises(RunError, match=r"run of another config: adagp\.step is 0\.001 there and 0\.1 here; choose"):
        checkpoint.resume(tmp_path, small(adagp={"step": 0.1}), identity_json(), "p0-c0")
    with pytest.raises(RunError, match=r"the dataset's codec is not .*: weights v here, w there; hop 2048 here, 4096"):
        checkpoint.resume(tmp_path, config, identity_json(weights="v", hop=2048), "p0-c0")
    with pytest.raises(RunError, match=r"trained on generation p0-c0, and the dataset is p1-c0; choose another --run"):
        checkpoint.resume(tmp_path, config, identity_json(), "p1-c0")


def test_a_run_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match=r"run cannot be made a folder"):
        checkpoint.resume(tmp_path / "run", small(), identity_json(), "p0-c0")


def test_a_checkpoint_of_another_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(replace(made(), step=1), tmp_path)
    monkeypatch.undo()
    with pytest.raises(RunError, match="another format"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("linked", [True, False])
def test_the_last_ones_and_every_so_many_steps_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError("a disk without links")

    if not linked:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    config = small(loop={"checkpoint_every": 2, "keep_last": 2, "keep_every": 6})
    for step in range(2, 17, 2):
        checkpoint.save(replace(made(), config=config, step=step), tmp_path)
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in kept] == ["00000006.pt", "00000012.pt", "00000014.pt", "00000016.pt"]
    assert [checkpoint.load(path).step for path in kept] == [6, 12, 14, 16] and checkpoint.load(tmp_path).step == 16
    assert not list(tmp_path.glob("kept/*.tmp*"))

    checkpoint.save(replace(made(), config=config, step=8), tmp_path)  # the user went back to step 6
    assert [path.name[6:8] for path in sorted((tmp_path / "kept").iterdir())] == ["06", "08", "12", "14", "16"]


def test_by_default_one_is_kept(tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoint.save(replace(made(), step=step), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
