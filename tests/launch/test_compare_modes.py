"""launch.compare_modes as a user meets it."""

import json
import shutil

from mains import run_mains


def test_the_table_is_printed_and_written(small_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(small_run.workdir, workdir)
    flags = ["--seeds=1", "--beams=4", "--norms=vocab", "--tolerances=", "--budgets=", "--drafter=popularity"]
    flags += ["--widths=all,8", "--modes=strict,relaxed_reference"]
    mistakes = [["--beams=20,x"], ["--beams=4", "--widths=tuned"], ["--widths=all"], ["--modes=strict,strict"]]
    calls = [("compare_modes", workdir, None, own, "") for own in (flags, *mistakes)]
    result, no_number, not_tuned, too_few, twice = run_mains(calls)
    assert no_number.code == 1
    assert "flag --beams=20,x: expected whole numbers, each at least 1 and" in no_number.err
    assert not_tuned.code == 1
    assert "there is no " in not_tuned.err
    assert "launch.tune_decoder" in not_tuned.err
    assert too_few.code == 1
    assert "--widths: widths=('all',) has 1 entries; ids of length 3 need 2" in too_few.err
    assert "measuring" not in too_few.out
    assert twice.code == 1
    assert "error: --modes=strict,strict: strict is given twice" in twice.err
    assert result.code == 0, result.err
    rows = json.loads((workdir / "modes.json").read_text())
    assert len(rows) == 1 + 2
    assert {row["K"] for row in rows} == {4}
    assert [row["widths"] for row in rows if row["method"] == "speculative"] == 2 * [["all", 8]]
    assert "relaxed_reference" in result.out
    assert "Modes of the decoder" in (workdir / "modes.md").read_text()
