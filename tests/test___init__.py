"""The face of the package: its names, and that each is imported when it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import atspeed_jax

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", atspeed_jax.__all__)
def test_a_name_is_that_of_its_room(name):
    module = importlib.import_module(f"atspeed_jax.{atspeed_jax._MODULES[name]}")
    assert getattr(atspeed_jax, name) is getattr(module, name)


def test_the_lists_of_names_are_one():
    assert list(atspeed_jax._MODULES) == atspeed_jax.__all__
    assert set(atspeed_jax.__all__) <= set(dir(atspeed_jax))


def test_editors_see_the_same_names():
    """What stands under TYPE_CHECKING is what __getattr__ imports."""
    tree = ast.parse(Path(atspeed_jax.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {alias.name: node.module for node in block.body for alias in node.names}
    assert shown == {name: f"atspeed_jax.{module}" for name, module in atspeed_jax._MODULES.items()}


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match=r"'atspeed_jax' has no attribute 'beam_serch'; it has .*beam_search"):
        _ = atspeed_jax.beam_serch


def test_rooms_are_imported_as_before():
    from atspeed_jax import items

    assert items.__name__ == "atspeed_jax.items"


def test_the_import_alone_imports_nothing_else():
    """In a process of its own: this one has everything already."""
    script = (
        "import sys; before = set(sys.modules); import atspeed_jax; atspeed_jax.__version__; dir(atspeed_jax);"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["atspeed_jax"]
