import ast
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax import shapes
from atspeed_jax.shapes import SlotMask
from devices import report_of

PACKAGE = Path(shapes.__file__).parent
GAP = re.compile(r"\S {2,}(?=\S)")  # between the columns of a table in a docstring


def notation() -> dict[str, str]:
    """Letter -> meaning, of the table at the head of shapes.py."""
    lines = [line.strip() for line in shapes.__doc__.splitlines()]
    return dict(line.split("  ", 1) for line in lines if re.match(r"[A-Z]  \S", line))


def docstrings(path: Path) -> list[tuple[ast.AST, str]]:
    """The documented modules, classes and functions of a file, with their docstrings."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [(node, ast.get_docstring(node)) for node in nodes if isinstance(node, documented)]
    return [(node, text) for node, text in found if text]


def glued_rows(text: str) -> list[str]:
    """Lines of running text in a docstring that hold two rows of a table: two gaps between columns, comments aside.

    A picture or a table is indented, so what a reformatting ran together is not.
    """
    lines = [line for line in text.splitlines() if not line.startswith(" ")]
    return [line for line in lines if len(GAP.findall(line.partition("#")[0])) > 1]


def names_of(node: ast.AST) -> set[str]:
    """The parameters of a function, the fields of a class."""
    if isinstance(node, ast.FunctionDef):
        return {one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    return {one.target.id for one in getattr(node, "body", []) if isinstance(one, ast.AnnAssign)}


def capitalized_name(node: ast.AST, text: str) -> str | None:
    """The name of a parameter or field that begins the docstring as if it were a word; None if there is none."""
    begin = re.match(r"([A-Z]\w*)(?=(?:, \w+)*(?: \[|:))", text)
    return begin[1] if begin and begin[1].lower() in names_of(node) - {begin[1]} else None


def test_a_letter_of_the_notation_has_a_line_of_its_own():
    assert list(notation()) == sorted("ABDHKLMNPRSTVWX")


@pytest.mark.parametrize(
    ("letter", "meaning"),
    [
        ("B", "users in a batch"),
        ("K", "beams kept per level"),
        ("N", "nodes of one level"),
        ("P", "prompt length; shorter prompts are padded on the left"),
        ("T", "tokens of one model call"),
        ("V", "vocabulary"),
        ("W", "drafted nodes of a level"),
    ],
)
def test_a_letter_has_its_meaning(letter, meaning):
    assert notation()[letter] == meaning


def test_every_letter_of_an_annotation_is_in_the_notation():
    strays = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for axes in re.findall(r'(?:Int|Float|Bool|Key)\[Array, "([^"]*)"\]', path.read_text(encoding="utf-8")):
            letters = [axis for axis in axes.split() if axis.isupper()]  # "1" and "*shape" are no letters
            strays += [f"{path}: {axis} in {axes!r}" for axis in letters if axis not in notation()]
    assert not strays, "\n".join(strays)


def test_no_docstring_glues_rows_of_a_table():
    found = [
        f"{path}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for _, text in docstrings(path)
        for line in glued_rows(text)
    ]
    assert not found, "\n".join(found)


def test_no_docstring_begins_with_a_capitalized_parameter():
    found = [
        f"{path}: {text.splitlines()[0]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node, text in docstrings(path)
        if capitalized_name(node, text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "B  users in a batch            L  codes of an item id (levels)     T  tokens of one model call",
        "padded  K  beams kept per level",
        "Each skips what is complete.     WORKDIR/data  target  teacher",
    ],
)
def test_a_glued_row_is_seen(line):
    assert glued_rows(f"The notation.\n\n{line}\n") == [line]


@pytest.mark.parametrize(
    "line", ["    B  users in a batch", "  run.json   {name,   # the name and   its hash", "One. Two."]
)
def test_a_row_of_its_own_is_no_glued_row(line):
    assert not glued_rows(line)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def rotate(x): 'X [B, T] turned.'", "X"),
        ("def write(store): 'Store [B, S] with new.'", "Store"),
        ("class Cache:\n    'Keys, values: [B, S].'\n    keys: int", "Keys"),
        ("def turn(x): 'Turns x.'", None),
        ("def find(items): 'Items of a user.'", None),
        ("def find(user): 'Items [n] of a user.'", None),
    ],
)
def test_a_capitalized_parameter_is_seen(source, name):
    node = ast.parse(source).body[0]
    assert capitalized_name(node, ast.get_docstring(node)) == name


def test_a_mask_of_two_parts_as_one():
    begin, end = jnp.array([[0, 2, 0]]), jnp.array([[1, 2, 2]])
    whole = SlotMask(begin, end, jnp.array([[[-1, -1], [3, -1], [5, 2]]]), 2).dense(6)
    assert [np.flatnonzero(seen).tolist() for seen in whole[0]] == [[0], [3], [0, 1, 2, 5]]
    assert SlotMask(begin, end, jnp.array([[[-1, -1], [3, -1], [-1, 2]]]), 2).sees_something().tolist() == [[True] * 3]
    nothing_behind = SlotMask(begin, end, jnp.zeros((1, 3, 0), int), 2)
    assert nothing_behind.sees_something().tolist() == [[True, False, True]]
    np.testing.assert_array_equal(nothing_behind.dense(2), nothing_behind.prompt)


def test_tokens_see_a_shared_head_if_they_see_anything_of_the_prompt():
    mask = SlotMask(jnp.array([[3, 3]]), jnp.array([[3, 5]]), jnp.zeros((1, 2, 0), int), 5, head=2)
    assert mask.prompt[0].astype(int).tolist() == [[0] * 5, [1, 1, 0, 1, 1]]
    assert mask.sees_something().tolist() == [[False, True]]


def test_whole_sequences_see_the_real_tokens_up_to_themselves():
    mask = SlotMask.causal(jnp.array([[False, True, True], [True, True, True]]))
    assert mask.prompt[0].astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask.prompt[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask.path.shape == (2, 3, 0)


def test_annotations_are_true_of_what_decoders_alignment_and_models_do():
    """In a process of its own: annotations are checked in modules that are imported after `check_annotations`."""
    report = report_of("annotated.py", 1)
    assert report["traced"] == 20
    assert report["raised"] == [
        "a mask of ints", "fewer users", "one axis more", "a length that is no int", "floats as nodes"
    ]  # fmt: skip
