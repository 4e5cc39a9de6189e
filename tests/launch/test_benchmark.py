"""launch.benchmark as a user meets it."""

import importlib.util
import json

import pytest

from launch import suites
from mains import run_mains


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(directory, what each case says)."""
    place = tmp_path_factory.mktemp("benchmark")
    (place / "there.txt").write_text("users\n")
    cases = {
        "trie": ["--suite=trie", f"--json={place / 'trie.json'}", "--sizes=50", "--codes=8"],
        "nowhere": ["--suite=trie", "--json=no/t.json"],
        "model": ["--suite=hugging_face", f"--json={place / 'h.json'}", "--models=5M"],
        "pack_json": ["--suite=decode", f"--pack={place / 'a.pack'}", f"--json={place / 'p.json'}"],
        "pack_over": ["--suite=decode", f"--pack={place / 'there.txt'}", "--workdir=nowhere"],
        "renamed": ["--suite=peers", f"--json={place / 'h.json'}"],
    }
    results = run_mains([("benchmark", None, None, case, "") for case in cases.values()])
    return place, dict(zip(cases, results, strict=True))


def test_rows_are_printed_and_written(ended):
    place, results = ended
    assert results["trie"].code == 0, results["trie"].err
    rows = json.loads((place / "trie.json").read_text())
    assert [row["items"] for row in rows] == [50]
    assert "unconstrained_topk_us" in results["trie"].out
    assert results["trie"].out.endswith(f"the report: {place / 'trie.html'}\n")
    assert "<title>Benchmark: trie</title>" in (place / "trie.html").read_text()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("nowhere", "there is no directory no"),
        ("model", "--models=5M: expected some of 4M, 25M, 110M"),
        ("pack_json", "--pack writes the run of --workdir and measures nothing: leave out --json"),
        ("pack_over", "there.txt is a file already: remove it, or name another file"),
        ("renamed", "flag --suite=peers: its name is hugging_face now"),
    ],
)
def test_a_mistake_is_one_line(ended, case, message):
    result = ended[1][case]
    assert result.code == 1
    assert message in result.err.splitlines()[-1]


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else name)
    monkeypatch.setattr(suites, "FLAGS", type("Flags", (), {"suite": "lora"}))
    suites.check_installed("torch")
    with pytest.raises(ValueError, match=r"^--suite=lora needs peft: pip install -r tests/hugging_face\.txt$"):
        suites.check_installed("torch", "peft")
