"""The house's rules that a program can hold: data walks one way, and no file outgrows its idea."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("prep", "shards", "train")
MAX_LINES = 300


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names that `source`, a module right in `package`, imports: `from a import b` is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = [*parts, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def allowed(package: str, name: str) -> bool:
    """Whether a module of `package` may import `name`: prep -> shards <- train, and train -> prep.codecs."""
    top = name.split(".")[0]
    if top not in PACKAGES or top == package:
        return True
    if package == "train":
        return top == "shards" or f"{name}.".startswith("prep.codecs.")
    return package == "prep" and top == "shards"


@pytest.mark.parametrize(
    ("package", "line", "fine"),
    [
        ("shards", "import numpy, prep", False),
        ("shards", "from train import loop", False),
        ("shards", "from shards.errors import ShardError", True),
        ("prep", "import shards", True),
        ("prep", "def f():\n    import train.loop", False),
        ("train", "from prep.codecs import load_codec", True),
        ("train", "from prep import codecs", True),
        ("train", "from prep import audio", False),
        ("train", "import prep", False),
        ("train", "from prep.codecs_old import x", False),
        ("train", "from ..prep import audio", False),
    ],
)
def test_the_rule_itself(package: str, line: str, fine: bool) -> None:
    assert all(allowed(package, name) for name in imports(line, package)) is fine


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_walk_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))
        if not allowed(package, name)
    ]
    assert sources(package) and not wrong


def test_no_file_outgrows_its_idea() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in sources(*PACKAGES, "tests")}
    assert not {str(path): lines for path, lines in lengths.items() if lines >= MAX_LINES}


def test_whatever_is_imported_is_declared() -> None:
    """Or an installation from nothing lacks it, while here it came along with something else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(each for extra in extras for each in extra)]
    declared = {_folded(re.split(r"[\[<>=]", each)[0]) for each in wanted}
    own = {*PACKAGES, "tests", *sys.stdlib_module_names}
    brings, undeclared = packages_distributions(), set()
    for path in sources(*PACKAGES, "tests"):
        if path.is_relative_to(ROOT / "tests/bench/loading"):
            continue  # has requirements and an environment of its own
        tops = {name.split(".")[0] for name in imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))}
        undeclared |= {top for top in tops - own if not declared & {top, *map(_folded, brings.get(top, []))}}
    assert not undeclared


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
