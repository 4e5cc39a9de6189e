"""launch.tune_decoder as a user meets it, and launch.recommend with what it found."""

import json
import shutil

import pytest

from mains import run_mains


@pytest.mark.slow
def test_the_table_is_printed_written_and_used(small_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(small_run.workdir, workdir)
    (tmp_path / "users.jsonl").write_text('{"user": 1, "items": [0, 1]}\n')
    flags = ["--beams=4", "--batch_sizes=2", "--batches=2", "--repeats=1", "--drafters=popularity", "--finalists=2"]
    files = [f"--checkpoint={workdir}", f"--input={tmp_path / 'users.jsonl'}"]
    lists = [("recommend", None, None, [*files, f"--k={k}", f"--output={tmp_path / f'{k}.jsonl'}"], "") for k in (4, 5)]
    cases = [("tune_decoder", workdir, None, [*flags, "--widths=all;3"], "")]
    wrong, tuned = run_mains([*cases, ("tune_decoder", workdir, None, [*flags, "--check_grid"], "")])
    assert wrong.code == 1
    assert "widths 'all;3': expected ints or 'all'" in wrong.err.splitlines()[-1]
    assert tuned.code == 0, tuned.err
    table = json.loads((workdir / "tuned.json").read_text())
    (row,) = table["rows"]
    assert (row["K"], row["batch"]) == (4, 2)
    assert len(row["settings"]) == 1 + 2 + row["checked"]["settings"]
    assert "chosen" in tuned.out
    assert "the fastest of" in tuned.out
    assert "Tuned decoding" in (workdir / "tuned.md").read_text()
    lists.append(
        ("recommend", None, None, [*files, "--drafter=tuned", "--k=5", f"--output={tmp_path / 'no'}.jsonl"], "")
    )
    found, other, unknown = run_mains(lists)
    assert found.code == 0, found.err
    assert f"tuned.json: {row['choice']}" in found.out + found.err
    assert len(json.loads((tmp_path / "4.jsonl").read_text())["items"]) == 4
    assert other.code == 0, other.err
    assert "tuned.json has no K=5, only 4: the draft model drafts" in other.out + other.err
    assert unknown.code == 1
    assert "tuned.json has no K=5, only [4]" in unknown.err.splitlines()[-1]
