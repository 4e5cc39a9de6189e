"""The installed library: its wheel, what it declares that it imports, and a run that it opens far from any checkout."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("atspeed_jax", "pyproject.toml", "README.md", "LICENSE")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
# Extras that a room needs beside the core; each room that is not here works with the core alone.
EXTRAS = {"data": {"train"}, "training": {"train"}, "reporting": {"report"}, "benchmarks": {"report", "hugging_face"}}
DISTRIBUTIONS = {"absl": "absl-py", "orbax": "orbax-checkpoint"}  # where it is not the name that is imported


def distribution(text: str) -> str:
    """Normalized name of the distribution that a requirement, or the name of an import, stands for."""
    name = re.match(r"[\w.-]+", text).group()
    return re.sub(r"[-_.]+", "-", DISTRIBUTIONS.get(name, name)).lower()


def required_by_heading(text: str) -> dict[str, list[str]]:
    """Requirements of a file by the first word of the comment above them, without comments behind them."""
    sections, heading = {}, None
    for line in text.splitlines():
        if not line.strip():
            heading = None
        elif line.startswith("#"):
            heading = heading or line.lstrip("# ").partition(":")[0]
        else:
            sections.setdefault(heading, []).append(line.partition("#")[0].strip())
    return sections


def test_requirements_and_the_package_declare_the_same():
    """requirements.txt sets up a checkout, pyproject.toml an installed library."""
    read = required_by_heading((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    compared = required_by_heading((ROOT / "tests" / "hugging_face.txt").read_text(encoding="utf-8"))
    assert read | {"hugging_face": [line for lines in compared.values() for line in lines]} == DECLARED


def test_no_requirement_is_declared_twice():
    names = [distribution(text) for requirements in DECLARED.values() for text in requirements]
    assert sorted(set(names)) == sorted(names)


def test_headings_are_read():
    text = "# What a file is\n# core: opens a run\n\n# core: one\n# more of it\na>=1  # why\nb\n\n# dev: two\nc\n"
    assert required_by_heading(text) == {"core": ["a>=1", "b"], "dev": ["c"]}


def imported(source: str) -> set[str]:
    """Top-level names of the third-party imports of a file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"atspeed_jax"}


def undeclared(room: str, source: str) -> set[str]:
    """Imports of a file of a room that neither the core nor the extras of the room bring."""
    have = {distribution(text) for extra in {"core"} | EXTRAS.get(room, set()) for text in DECLARED[extra]}
    return {name for name in imported(source) if distribution(name) not in have}


def files_of(room: str) -> list[Path]:
    place = ROOT / "atspeed_jax" / room
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


ROOMS = sorted({path.relative_to(ROOT / "atspeed_jax").parts[0] for path in (ROOT / "atspeed_jax").rglob("*.py")})


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_imports_is_declared(room):
    found = {path.name: undeclared(room, path.read_text(encoding="utf-8")) for path in files_of(room)}
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("serving", "import grain"),
        ("serving", "def f():\n    import pandas.io"),
        ("models", "from matplotlib import pyplot"),
        ("data", "from ml_collections import ConfigDict"),
        ("training", "from matplotlib.figure import Figure"),
        ("reporting", "import pytest"),
    ],
)
def test_an_undeclared_import_is_seen(room, source):
    assert len(undeclared(room, source)) == 1


@pytest.mark.parametrize("room", EXTRAS)
def test_a_room_needs_the_extra_that_it_has(room):
    core = {distribution(text) for text in DECLARED["core"]}
    names = set().union(*(imported(path.read_text(encoding="utf-8")) for path in files_of(room)))
    assert {distribution(name) for name in names} - core
