"""The house rules, read off the syntax tree of every file: who may import whom, sizes, and what a library never does.

launch -> accelerator -> sweeps, benchmarks, planning -> runs -> reporting, export -> evaluation, training, tuning
-> serving, alignment -> decoding, models, ids, data -> ingest -> items -> shapes, utils
"""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.measures import FILE_LINES, FUNCTION_LINES, PACKAGE, imports, long_functions, room_of

ROOT = Path(__file__).resolve().parent.parent

# The floors of the house, from the ground up: a room may import what stands on a lower floor, and itself.
FLOORS = (
    {"shapes", "utils"},
    {"items"},
    {"ingest"},
    {"data", "ids", "models", "decoding"},
    {"alignment", "serving"},
    {"evaluation", "training", "tuning"},
    {"reporting", "export"},
    {"runs"},
    {"sweeps", "benchmarks", "planning"},
    {"accelerator"},
)
MAY_IMPORT = {room: set().union(*FLOORS[:number]) for number, floor in enumerate(FLOORS) for room in floor}
LIBRARY_NEVER = ("absl.flags", "absl.app", "ml_collections", "tensorflow", "launch", "configs")
COMPARED = ("torch", "transformers", "peft")  # only the room of COMPARES imports them, and only inside functions
COMPARES = "benchmarks"
PICKLES = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")

MAIN_LINES = 60


def sources(*folders: str) -> list[Path]:
    """Python files of the given top-level folders, relative to the repository."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def import_offences(path: Path, tree: ast.AST) -> list[str]:
    """Imports that a file must not have."""
    offences = []
    in_library, eager = path.parts[0] == PACKAGE, eager_imports(tree, path)
    for line, name in imports(tree, path):
        where = f"{path}:{line} imports {name}"
        if any(within(name, module) for module in PICKLES):
            offences.append(f"{where}: no pickle is ever loaded or written")
        if not in_library:
            continue
        if any(within(name, module) for module in LIBRARY_NEVER):
            offences.append(f"{where}: not in the library")
        if any(within(name, module) for module in COMPARED) and (room_of(path) != COMPARES or (line, name) in eager):
            offences.append(f"{where}: in {COMPARES}/ alone, inside a function")
        if within(name, PACKAGE) and not is_face(path):
            offences += arrow_offences(path, name, where)
    if is_face(path):
        offences += [
            f"{path}:{line} imports {name}: lazily, from any room, in __getattr__ or under TYPE_CHECKING"
            for line, name in eager_imports(tree, path)
            if name.partition(".")[0] not in sys.stdlib_module_names
        ]
    return offences


def is_face(path: Path) -> bool:
    """Whether a file is the package's own __init__.py, which shows names of every room and imports them lazily."""
    return path.parts == (PACKAGE, "__init__.py")


def eager_imports(tree: ast.AST, path: Path) -> list[tuple[int, str]]:
    """`imports` that run when the module is imported: outside functions, and not for type checkers alone."""
    lazy = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
    ]
    spared = {line for node in lazy for line, _ in imports(node, path)}
    return [(line, name) for line, name in imports(tree, path) if line not in spared]


def arrow_offences(path: Path, name: str, where: str) -> list[str]:
    room, parts = room_of(path), name.split(".")
    if room not in MAY_IMPORT:
        return [f"{path}: room {room!r} is unknown; give it a place in MAY_IMPORT"]
    if len(parts) == 1 or (parts[1] != room and parts[1] not in MAY_IMPORT[room]):
        return [f"{where}: {room} may import only {', '.join(sorted(MAY_IMPORT[room])) or 'nothing of the package'}"]
    return []


def touches_jax_config(tree: ast.AST, path: Path) -> list[int]:
    """Lines that read or set jax.config, under whatever name jax was imported."""
    lines = [line for line, name in imports(tree, path) if within(name, "jax.config")]
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "jax"
    }
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "config")
    return lines + [node.lineno for node in attributes if ast.unparse(node.value) in aliases]


def allows_pickle(tree: ast.AST) -> list[int]:
    """Lines that pass allow_pickle=... with anything but False."""
    return [
        node.value.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]


def acts_on_import(tree: ast.Module) -> list[int]:
    """Lines of module-level statements that do more than define: calls, loops, and arrays made with jax.

    Allowed are imports, definitions, assignments, `if` around imports, docstrings and calls of register_* and defvjp.
    """
    lines = []
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = ast.unparse(node.value.func).rpartition(".")[2]
            if not name.startswith(("register", "defvjp")):
                lines.append(node.lineno)
        elif isinstance(node, ast.For | ast.While | ast.With | ast.Delete | ast.Assert | ast.AugAssign):
            lines.append(node.lineno)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            calls = [ast.unparse(inner.func) for inner in ast.walk(node.value) if isinstance(inner, ast.Call)]
            if any(re.match(r"(jnp|jax\.(numpy|random|devices|device_put|make_mesh))\b", call) for call in calls):
                lines.append(node.lineno)
    return lines


def is_main(tree: ast.Module) -> bool:
    """Whether a file does something when it is run."""
    return any(isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree.body)


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def offences(path: Path, tree: ast.Module) -> list[str]:
    """Everything a file of atspeed_jax/, configs/, launch/ or tests/ does against the rules, sizes apart."""
    found = import_offences(path, tree)
    found += [f"{path}:{line} allows pickle" for line in allows_pickle(tree)]
    if path.parts[0] == PACKAGE:
        found += [f"{path}:{line} touches jax.config" for line in touches_jax_config(tree, path)]
        found += [f"{path}:{line} acts on import" for line in acts_on_import(tree)]
    return found


@pytest.mark.parametrize("path", sources(PACKAGE, "configs", "launch", "tests"), ids=str)
def test_file_keeps_the_rules(path):
    tree = parsed(path)
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    found = offences(path, tree)
    if lines > FILE_LINES:
        found.append(f"{path}: {lines} lines, at most {FILE_LINES}; a room is asking to be born")
    if path.parts[0] != "tests":
        found += [f"{path}: {name}, at most {FUNCTION_LINES}" for name in long_functions(tree)]
    if path.parts[0] == "launch" and lines > MAIN_LINES and is_main(tree):
        found.append(f"{path}: a main of {lines} lines, at most {MAIN_LINES}; move the work below launch/")
    assert not found, "\n".join(found)


def test_every_room_is_a_package():
    folders = {(ROOT / path).parent for path in sources(PACKAGE, "launch")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_tests_mirror_the_package():
    """tests/room/test_file.py, or test_file_aspect.py, is for atspeed_jax/room/file.py (tests/launch for launch/).

    tests/launch/test_pods.py is for the scripts of launch/pods/.
    """
    strays = []
    for path in sources("tests"):
        assert path.name != "__init__.py", f"{path}: importmode=importlib wants no __init__.py here"
        if len(path.parts) == 2 or not path.name.startswith("test_"):
            continue
        folder = Path(*path.parts[1:-1])
        home = ROOT / (folder if path.parts[1] in ("launch", "configs") else Path(PACKAGE, folder))
        stem = path.stem.removeprefix("test_")
        modules = [module for module in home.iterdir() if module.suffix == ".py" or module.is_dir()]
        if not any(stem == module.stem or stem.startswith(module.stem + "_") for module in modules):
            strays.append(f"{path} tests nothing of {home.relative_to(ROOT)}/")
    assert not strays, "\n".join(strays)


def test_every_module_with_code_has_a_test():
    bare = []
    for path in sources(PACKAGE):
        if not any(isinstance(node, ast.FunctionDef) for node in ast.walk(parsed(path))):
            continue
        folder = ROOT / "tests" / Path(*path.parts[1:-1])
        if not list(folder.glob(f"test_{path.stem}*.py")):
            bare.append(f"{path} has no {folder.relative_to(ROOT)}/test_{path.stem}.py")
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("items/trie.py", "from atspeed_jax.data import prompts"),
        ("items/trie.py", "from atspeed_jax.runs import pipeline"),
        ("shapes.py", "from atspeed_jax.items import trie"),
        ("data/batches.py", "from ..models.llama import Llama"),
        ("decoding/beams.py", "import atspeed_jax.models.llama"),
        ("models/llama.py", "def f():\n    from atspeed_jax.decoding import beams"),
        ("alignment/losses.py", "from atspeed_jax.training import optim"),
        ("evaluation/evaluate.py", "from atspeed_jax.training.train import fit"),
        ("evaluation/modes.py", "from atspeed_jax.reporting.tables import Table"),
        ("tuning/tune.py", "from atspeed_jax.evaluation.metrics import recall_at"),
        ("training/train.py", "from atspeed_jax.runs.pipeline import Run"),
        ("runs/experiment.py", "from atspeed_jax.sweeps.trials import Trial"),
        ("runs/pipeline.py", "from atspeed_jax.benchmarks.input import input_speed"),
        ("runs/pipeline.py", "import launch.config"),
        ("newroom/a.py", "import atspeed_jax.items"),
        ("training/train.py", "import atspeed_jax"),
        ("training/train.py", "from absl import flags"),
        ("training/train.py", "from ml_collections import config_dict"),
        ("training/train.py", "import tensorflow.io"),
        ("models/weights.py", "import torch"),
        ("models/weights.py", "from transformers import AutoModel"),
        ("models/lora.py", "def f():\n    import peft"),
        ("benchmarks/lora.py", "import torch"),
        ("benchmarks/lora.py", "from transformers import AutoModel"),
        ("benchmarks/lora.py", "if torch_is_there:\n    import peft"),
        ("training/checkpoint.py", "import pickle"),
        ("training/checkpoint.py", "import numpy as np\nx = np.load('a.npy', allow_pickle=True)"),
        ("training/train.py", "import jax\ndef f():\n    jax.config.update('jax_enable_x64', True)"),
        ("training/train.py", "import jax as j\ndef f():\n    j.config.jax_enable_x64 = True"),
        ("training/train.py", "from jax import config"),
        ("training/train.py", "print('hello')"),
        ("training/train.py", "import jax.numpy as jnp\nZERO = jnp.zeros(3)"),
        ("__init__.py", "from atspeed_jax.items.trie import build_trie"),
        ("__init__.py", "if True:\n    from .items.trie import build_trie"),
        ("__init__.py", "import jax"),
        ("__init__.py", "import importlib\nimportlib.import_module('atspeed_jax.items.trie')"),
        ("__init__.py", "def __getattr__(name):\n    from launch import stage"),
    ],
)
def test_an_offence_is_seen(path, source):
    assert len(offences(Path(PACKAGE, path), ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/dataset.py", "import tensorflow_datasets as tfds\nfrom absl import logging"),
        ("alignment/teacher.py", "from atspeed_jax.decoding import beam_search\nfrom ..items.trie import Trie"),
        ("evaluation/validate.py", "from atspeed_jax.data.users import HeldOutUsers"),
        (
            "runs/pipeline.py",
            "from atspeed_jax.training.train import fit\nimport atspeed_jax.runs.stages",
        ),
        ("planning/plan.py", "from atspeed_jax.runs.experiment import ExperimentConfig"),
        ("benchmarks/lora.py", "def f():\n    import torch\n    from transformers import AutoModel"),
        ("models/llama.py", "import jax\nstep = jax.jit(len)\njax.tree_util.register_dataclass(int)"),
        ("data/sources.py", "import numpy as np\nx = np.load('a.npy', allow_pickle=False)"),
        ("__init__.py", "import importlib\ndef __getattr__(name):\n    from atspeed_jax.runs import pipeline"),
        ("__init__.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from atspeed_jax.items import trie"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert not offences(Path(PACKAGE, path), ast.parse(source))
