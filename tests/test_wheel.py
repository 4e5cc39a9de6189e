"""The installed library: its requirements, its wheel, and a run that it opens."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("atspeed_jax", "pyproject.toml", "README.md", "LICENSE")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
# Extras that a room needs beside the core; other rooms work with the core alone.
EXTRAS = {
    "data": {"train"},
    "ids": {"ids", "text"},
    "ingest": {"ingest", "beam"},
    "training": {"train"},
    "reporting": {"report"},
    "benchmarks": {"report", "hugging_face", "ids", "ingest"},
}
# Where a distribution is not named as its import.
DISTRIBUTIONS = {"absl": "absl-py", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn"}


def distribution(text: str) -> str:
    """Normalized name of the distribution of a requirement, or of an imported name."""
    name = re.match(r"[\w.-]+", text).group()
    return re.sub(r"[-_.]+", "-", DISTRIBUTIONS.get(name, name)).lower()


def required_by_heading(text: str) -> dict[str, list[str]]:
    """Requirements of a file by the first word of the comment above them."""
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
    for extra in ("hugging_face", "tpu_compiler", "gpu_compiler", "text", "beam"):
        of_tests = required_by_heading((ROOT / "tests" / f"{extra}.txt").read_text(encoding="utf-8"))
        read[extra] = [line for lines in of_tests.values() for line in lines]
    assert read == DECLARED


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
    """Imports of a file that neither the core nor the extras of its room bring."""
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


def messages(source: str) -> list[str]:
    """Texts of a file that are no docstrings; f-strings without their values."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value for part in node.values if isinstance(part, ast.Constant)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | bare:
            texts.append(node.value)
    return texts


def without_checkout(source: str) -> list[str]:
    """Messages that name a main, which is not installed, without the word checkout."""
    named = [text for text in messages(source) if " " in text and re.search(r"\blaunch\.[a-z]", text)]
    return [text for text in named if "checkout" not in text]


@pytest.mark.parametrize("room", ROOMS)
def test_a_message_says_whose_command_it_names(room):
    found = {path.name: without_checkout(path.read_text(encoding="utf-8")) for path in files_of(room)}
    assert not {name: texts for name, texts in found.items() if texts}


def test_a_command_without_its_checkout_is_seen():
    assert len(without_checkout('raise E(f"{path} is gone; " f"make {path} with python -m launch.evaluate")')) == 1
    assert not without_checkout('raise E(f"{path} is gone; " f"in the checkout run python -m launch.evaluate")')
    assert not without_checkout('"""What launch.evaluate makes."""\ncommand = ["launch.evaluate"]')


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of a copy of the sources: a build leaves directories beside them."""
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place / "dist", place)
    return next((place / "dist").glob("*.whl"))


def pip(*arguments) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run([*command, *map(str, arguments), "--no-index"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    sources = [path for path in (ROOT / "atspeed_jax").rglob("*") if path.suffix in (".py", ".md", ".typed")]
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    assert {"atspeed_jax/py.typed", "atspeed_jax/README.md", "atspeed_jax/decoding/ALGORITHM.md"} <= expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_has_the_version_of_the_package(wheel):
    version = re.search(r'^__version__ = "(.*)"$', (ROOT / "atspeed_jax/__init__.py").read_text("utf-8"), re.M).group(1)
    assert wheel.name == f"atspeed_jax-{version}-py3-none-any.whl"


OPENS = """
import json, sys
import atspeed_jax
assert "jax" not in sys.modules
run = atspeed_jax.open_run(sys.argv[1])
found = run.recommender(k=6, exclude_seen=True)([[12, 7, 30], []])
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"items": found.items, "files": files}))
"""


@pytest.fixture(scope="module")
def opened(wheel, small_run, tmp_path_factory):
    """A run that the installed library opens.

    items: its lists. files: the file of every imported module. packages: where the library
    is installed.
    """
    place = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "env"], check=True)
    python = place / "env" / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    packages = next((place / "env").glob("lib/python*/site-packages"))
    # What the library needs comes from the environment of the tests, without a network.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, "-c", OPENS, small_run.workdir]
    settings |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, cwd=place, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]), packages=packages)


def test_an_installed_library_opens_a_run_and_recommends(opened, small_run):
    from atspeed_jax import open_run

    again = open_run(small_run.workdir).recommender(k=6, exclude_seen=True)([[12, 7, 30], []])
    assert opened.items == again.items


def test_no_module_of_the_checkout_is_imported(opened):
    needed = Path(sysconfig.get_path("purelib"))
    files = [Path(file) for file in opened.files.values() if file]
    assert not [file for file in files if file.is_relative_to(ROOT) and not file.is_relative_to(needed)]
    library = [Path(file) for name, file in opened.files.items() if name.partition(".")[0] == "atspeed_jax"]
    assert len(library) > 30
    assert all(file.is_relative_to(opened.packages) for file in library)


def test_the_core_needs_no_extra(opened):
    """What only an extra brings is not imported; absl, of `launch`, comes with flax."""
    installed = importlib.metadata.packages_distributions()
    extras = {distribution(text) for name, texts in DECLARED.items() if name != "core" for text in texts} - {"absl-py"}
    of_extras = {name for name, owners in installed.items() if extras & {distribution(owner) for owner in owners}}
    assert {"grain", "matplotlib", "ml_collections", "tensorboardX"} <= of_extras
    loaded = {name.partition(".")[0] for name in opened.files}
    assert not loaded & of_extras
