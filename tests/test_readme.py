"""The README is true: its commands and their options exist, its settings are settings, and it is short."""

import re
import shlex
from pathlib import Path

import click
import pytest

import prep.cli
import train.cli
from prep.config import read_config
from prep.ledger import FILTERED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", README, re.S) for line in block.splitlines()]


def program(name: str) -> click.Group:
    return {"prep": prep.cli.main, "train": train.cli.main}[name]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith(("prep ", "train "))])
def test_a_command_parses(line: str) -> None:
    """Up to its options and arguments; nothing is run."""
    name, command, *words = shlex.split(line)
    found = program(name).commands[command]
    found.make_context(command, words)


def test_the_makefile_has_what_is_promised() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make (\w+)", README)) <= targets


def test_settings_that_are_named_are_settings() -> None:
    for setting in re.findall(r"--set ([\w.]+=[^`\s]+)", README):
        read_config(None, (setting,))


def test_reasons_that_are_named_are_reasons() -> None:
    table = README[README.index("| left out as") : README.index("## Building again")]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:] if row.strip())))
    broken = {"truncated", "corrupt", "not_finite", "gave_up", "too_much_memory", "crashed"}
    assert named - FILTERED == broken and named & FILTERED


def test_it_is_short_and_names_rooms_that_exist() -> None:
    assert len(README.splitlines()) < 250
    for path in ("configs", "prep", "shards", "train", "tests"):
        assert (ROOT / path).is_dir()
