"""launch.predict as a user meets it."""

import json

from mains import run_mains


def test_predictions_are_printed_and_written(small_run, tmp_path):
    path = tmp_path / "predicted.json"
    flags = ["--chips=v5e,h100", "--shapes=pair,3m", "--beams=2", "--users=4", f"--json={path}"]
    mistakes = [["--chips=v9"], ["--shapes=8m"], ["--widths=all"], [f"--json={tmp_path}/no/p.json"]]
    cases = [("predict", small_run.workdir, None, own, "") for own in (flags, *mistakes)]
    found, chip, shape, widths, file = run_mains(cases)
    assert found.code == 0, found.err
    assert "Predicted, not measured" in found.out
    assert "Target calls and rounds are measured" in found.out
    rows = json.loads(path.read_text())["rows"]
    assert [(row["shape"], row["chip"]) for row in rows] == [
        ("pair", "v5e"),
        ("pair", "h100"),
        ("3m", "v5e"),
        ("3m", "h100"),
    ]
    assert all(row["compiler_ms"] is None and row["roofline_speedup"] > 0 for row in rows)
    assert "error: chip 'v9' is unknown" in chip.err
    assert "error: shape '8m': expected one of" in shape.err
    assert "error: --widths: widths=('all',) has 1 entries" in widths.err
    assert "error: --json=" in file.err
    assert {result.code for result in (chip, shape, widths, file)} == {1}
