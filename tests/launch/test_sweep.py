"""launch.sweep as a user meets it."""

import json

import small
from atspeed_jax.pipeline import Run
from mains import QUICK, run_mains

SWEEP = "tests/helpers/small_sweep.py"


def test_a_sweep_borrows_measures_and_goes_on_where_it_was(small_run, tmp_path):
    workdir = tmp_path / "sweep"
    case = ("sweep", workdir, SWEEP, [f"--borrow={small_run.workdir}"], "")
    killed = (*case[:4], str(workdir / "words_0" / "draft" / "metrics.jsonl"))
    first, second = run_mains([killed, case], QUICK)
    assert first.code == -9 and second.code == 0, second.err
    for stage in ("data", "target", "teacher", "draft_sft"):
        assert (workdir / "kd_0" / stage).is_symlink() and (workdir / "words_0" / stage).is_symlink()
    assert not (workdir / "kd_0" / "draft").is_symlink()
    assert small.snapshot(small_run.workdir) == small_run.files, "what is borrowed is never written"
    rows = json.loads((workdir / "sweep.json").read_text())
    assert [(row["run"], row["objective"], row["seed"], row["K"]) for row in rows] == [
        ("kd", "tree_kd", 0, 3),
        ("words", "word_kd", 0, 3),
    ]
    for row in rows:
        assert row["users"] == 4 == len(row["calls_by_user"]) and 1 <= row["target_calls_mean"] <= 3
        assert len(row["coverage_by_level"]) == 2 and row["target_fingerprint"]
    text = (workdir / "sweep.md").read_text()
    assert "Target calls minus those of words" in text and "Runs side by side" in second.out
    assert (workdir / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_borrowed_from_other_settings(small_run, small_config, tmp_path):
    other = small.changed(small_config, "train_target.epochs", 1.0)
    run = Run(other, tmp_path, None)
    for stage in ("data", "target"):
        run.borrow(stage, [small_run.workdir])
    assert (tmp_path / "data").is_symlink() and not (tmp_path / "target").exists()
