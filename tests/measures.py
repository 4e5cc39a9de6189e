"""Measures of a checkout: sizes, comments, floors, type errors.

    python tests/measures.py [--json] [--collect] [ROOT ...]

Prints one column per ROOT (default: the checkout of this file), for example of a worktree of an older commit:
    git worktree add --detach /tmp/old v0.1.0 && python tests/measures.py /tmp/old .
Reads syntax trees only: no file of ROOT is imported, unless --collect has pytest collect the tests there.
"""

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PACKAGE = "atspeed_jax"
PRODUCT = (PACKAGE, "launch", "configs")

FILE_LINES = 300
FUNCTION_LINES = 60
PARAMETERS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


def imports(tree: ast.AST, path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions; `from a import b` gives a.b, relative ones too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: len(path.parts) - node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def room_of(path: Path) -> str | None:
    """Room of a library file, relative to the checkout; None for the package's own __init__.py."""
    return None if path.parts[1] == "__init__.py" else path.parts[1].removesuffix(".py")


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def long_functions(tree: ast.AST) -> list[str]:
    """Name and length of every function of more than FUNCTION_LINES lines, decorators apart."""
    sizes = ((node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions(tree))
    return [f"{name} ({lines} lines)" for name, lines in sizes if lines > FUNCTION_LINES]


def wide_functions(tree: ast.AST) -> list[str]:
    """Name and number of parameters of every function with more than PARAMETERS; self, *args and **kwargs count."""
    found = []
    for node in functions(tree):
        given = node.args  # not those of a lambda that is a default
        plain = (*given.posonlyargs, *given.args, *given.kwonlyargs)
        count = len(plain) + (given.vararg is not None) + (given.kwarg is not None)
        if count > PARAMETERS:
            found.append(f"{node.name} ({count} parameters)")
    return found


def comments_and_code(source: str) -> tuple[int, int]:
    """Lines with a comment, and lines with code; docstrings are neither."""
    documented = ast.Module | ast.ClassDef | Function
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    comments, code = set(), set()
    layout = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - docstrings)


def floors(arrows: dict[str, set[str]]) -> int:
    """Number of rooms in the longest chain in which every room imports the next one.

    Raises:
        ValueError: rooms import each other in a circle, which is named.
    """
    heights: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"rooms import each other in a circle: {' -> '.join((*above, room))}")
        if room not in heights:
            heights[room] = 1 + max((height(below, (*above, room)) for below in arrows.get(room, ())), default=0)
        return heights[room]

    return max((height(room, ()) for room in arrows), default=0)


def room_imports(trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """{room: the other rooms that one of its files imports}; launch/ is a room here."""
    rooms = {path: room_of(path) if path.parts[0] == PACKAGE else path.parts[0] for path in trees}
    arrows: dict[str, set[str]] = {room: set() for room in rooms.values() if room not in (None, "configs")}
    for path, room in rooms.items():
        if room in arrows:
            names = (name.split(".") for _, name in imports(trees[path], path))
            arrows[room].update(name[1] for name in names if name[0] == PACKAGE and len(name) > 1)
    return {room: {below for below in belows if below in arrows} - {room} for room, belows in arrows.items()}


def type_errors(root: Path) -> int | None:
    """Errors that pyright finds, in the folders and by the rules of this checkout; None where it is not installed."""
    if find_spec("basedpyright") is None:
        return None
    rules = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["basedpyright"]
    rules |= {"include": [str(root / folder) for folder in rules["include"]], "ignore": []}
    rules["extraPaths"] = [str(root)]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pyrightconfig.json"
        config.write_text(json.dumps(rules), encoding="utf-8")
        command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", config]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["summary"]["errorCount"]


def tests_collected(root: Path) -> int | None:
    """Number of tests of the fast suite; None where pytest cannot collect them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    found = re.search(r"^(\d+)(?:/\d+)? tests? collected", done.stdout, re.MULTILINE)
    return int(found[1]) if found and not done.returncode else None


def measures(root: Path) -> dict[str, int | float | str | None]:
    """{measure: value} of the checkout at `root`, type errors and tests apart."""
    texts = {
        path.relative_to(root): path.read_text(encoding="utf-8")
        for folder in (*PRODUCT, "tests")
        for path in sorted((root / folder).rglob("*.py"))
    }
    product = {path: ast.parse(text, str(path)) for path, text in texts.items() if path.parts[0] in PRODUCT}
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    rooms: dict[str, int] = {}
    for path in product:
        if path.parts[0] == PACKAGE and (room := room_of(path)):
            rooms[room] = rooms.get(room, 0) + lines[path]
    total = sum(lines[path] for path in product)
    largest = max(rooms, key=lambda room: rooms[room])
    decoding = [comments_and_code(text) for path, text in texts.items() if path.parts[:2] == (PACKAGE, "decoding")]
    comments, code = (sum(column) for column in zip(*decoding, strict=True)) if decoding else (0, 0)
    return {
        "lines of code": total,
        f"functions over {FUNCTION_LINES} lines": sum(len(long_functions(tree)) for tree in product.values()),
        f"functions with more than {PARAMETERS} parameters": sum(len(wide_functions(t)) for t in product.values()),
        f"files over {FILE_LINES} lines": sum(count > FILE_LINES for count in lines.values()),
        "comment lines per 100 code lines in decoding/": round(100 * comments / code, 1) if code else None,
        "floors": floors(room_imports(product)),
        "rooms": len(rooms),
        "largest room": largest,
        "largest room's share of the code (%)": round(100 * rooms[largest] / total, 1),
        "README lines": len((root / "README.md").read_text(encoding="utf-8").splitlines()),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Measures of a checkout, one column per ROOT.")
    parser.add_argument("--json", action="store_true", help="print {root: {measure: value}}")
    parser.add_argument("--collect", action="store_true", help="count the tests of the fast suite too (slow)")
    parser.add_argument("roots", metavar="ROOT", nargs="*", type=Path, default=[HERE])
    options = parser.parse_args(arguments)
    columns = {}
    for root in options.roots:
        if not (root / PACKAGE).is_dir():
            parser.error(f"{root} is no checkout: it has no {PACKAGE}/; name the folder that holds {PACKAGE}/")
        columns[str(root)] = measures(root.resolve()) | {"type errors": type_errors(root.resolve())}
        if options.collect:
            columns[str(root)]["tests collected"] = tests_collected(root.resolve())
    if options.json:
        print(json.dumps(columns, indent=2))
        return
    rows = [["measure", *columns]]
    for measure in next(iter(columns.values())):
        values = (column[measure] for column in columns.values())
        rows.append([measure, *("not measured" if value is None else str(value) for value in values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
