import json

from mains import QUICK, run_mains


def test_rows_are_printed_and_written(tmp_path):
    path = tmp_path / "trie.json"
    flags = ["--suite=trie", f"--json={path}", "--sizes=50,100", "--codes=8"]
    cases = [flags, ["--suite=trie", "--json=no/t.json"]]
    ok, nowhere = run_mains([("benchmark", None, None, case, "") for case in cases], QUICK)
    assert ok.code == 0, ok.err
    rows = json.loads(path.read_text())
    assert [row["items"] for row in rows] == [50, 100]
    assert "unconstrained_topk_us" in ok.out
    assert nowhere.code != 0
    assert "there is no directory no" in nowhere.err
