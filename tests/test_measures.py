"""tests/measures.py on a checkout that is made up, of which every measure is known."""

import ast
import json
from pathlib import Path

import pytest

from tests import measures

FILES = {
    "atspeed_jax/__init__.py": "from atspeed_jax.tall import ceiling\n",
    "atspeed_jax/ground.py": "X = 1\n",
    "atspeed_jax/decoding/__init__.py": '"""Room.\n\n# no comment\n"""\n',
    "atspeed_jax/decoding/a.py": (
        "# why\nfrom atspeed_jax import ground\n\n\ndef f(a):\n"
        '    """Returns a."""\n    # why\n    b = "# no comment"  # why\n    return a, b\n'
    ),
    "atspeed_jax/tall/__init__.py": "",
    "atspeed_jax/tall/ceiling.py": (
        "from ..decoding import a\nfrom . import other\n\n\ndef wide(a, b, /, c, *d, e, f, g, h, **i):\n    return a\n"
    ),
    "atspeed_jax/tall/other.py": "def long():\n" + "    pass\n" * 60 + "X = 1\n" * 250,
    "launch/a.py": "import atspeed_jax.tall.ceiling\n",
    "configs/a.py": "def f(a, b, c, d, e, f, g, h):\n    return a\n",
    "tests/test_a.py": "X = 1\n" * 301,
    "README.md": "a\n\nb\n",
}
MEASURES = {
    "lines of code": 335,
    "functions over 60 lines": 1,
    "functions with more than 8 parameters": 1,
    "files over 300 lines": 2,
    "comment lines per 100 code lines in decoding/": 75.0,
    "floors": 4,
    "rooms": 3,
    "largest room": "tall",
    "largest room's share of the code (%)": 94.6,
    "README lines": 3,
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def test_every_measure_of_a_known_checkout(checkout):
    assert measures.measures(checkout) == MEASURES


@pytest.mark.parametrize("lines", [60, 61])
def test_a_function_is_long_from_its_61st_line_on(lines):
    tree = ast.parse("@staticmethod\ndef f():\n" + "    pass\n" * (lines - 1))
    assert measures.long_functions(tree) == ["f (61 lines)"] * (lines == 61)


def test_rooms_that_import_each_other_have_no_floors():
    with pytest.raises(ValueError, match="in a circle: a -> b -> a"):
        measures.floors({"a": {"b"}, "b": {"a"}})


def test_a_diamond_has_as_many_floors_as_its_longest_side():
    assert measures.floors({"roof": {"a", "ground"}, "a": {"b"}, "b": {"ground"}, "ground": set()}) == 4


def test_one_column_per_checkout(checkout, monkeypatch, capsys):
    monkeypatch.setattr(measures, "type_errors", lambda root: None)
    (checkout / "newer/atspeed_jax/room").mkdir(parents=True)
    (checkout / "newer/atspeed_jax/room/a.py").write_text("X = 1\n")
    (checkout / "newer/README.md").touch()
    measures.main([str(checkout), str(checkout / "newer")])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["measure", str(checkout), str(checkout / "newer")]
    assert [row.split()[-2:] for row in rows if row.startswith("floors")] == [["4", "1"]]
    assert rows[-1].split() == ["type", "errors", "not", "measured", "not", "measured"]


def test_json_holds_the_same(checkout, monkeypatch, capsys):
    monkeypatch.setattr(measures, "type_errors", lambda root: 7)
    measures.main(["--json", str(checkout)])
    assert json.loads(capsys.readouterr().out) == {str(checkout): MEASURES | {"type errors": 7}}


def test_a_folder_that_is_no_checkout_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        measures.main([str(tmp_path)])
    assert f"{tmp_path} is no checkout: it has no atspeed_jax/" in capsys.readouterr().err
