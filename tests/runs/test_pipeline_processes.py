"""The whole pipeline run by several processes of this machine, beside the run of one (`small_run`)."""

import json
import time

import jax
import numpy as np
import pytest

from atspeed_jax.alignment.teacher_files import load_teacher
from atspeed_jax.training.checkpoint import load_params
from atspeed_jax.training.metrics_log import read_metrics
from devices import begin_processes
from mains import SMALL

# Of one process and several alike: the losses of every step and the parameters to this, lists and calls entirely
# (ALGORITHM.md section 5).
RELATIVE = 1e-5
SWEEP = "tests/helpers/small_sweep.py"


def begin(count, main, *arguments):
    """The processes of a main, just begun."""
    where = ["--coordinator=|localhost:|PORT", "--num_processes=|COUNT", "--process_id=|NUMBER"]
    return begin_processes(count, ["-m", f"launch.{main}", *arguments, *where])


def run_by(count, main, *arguments):
    """The main, run by so many processes, all of which must end well."""
    begun = begin(count, main, *arguments)
    said = [process.communicate(timeout=900) for process in begun]
    assert [process.returncode for process in begun] == [0] * count, said[0][1][-3000:]


def params_of(run, directory):
    """What a stage of the small pipeline has trained, on the host."""
    start = (run.assets.target if directory.name == "target" else run.assets.draft).initialization
    return jax.device_get(load_params(directory, start.abstract(run.mesh))[0])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_do_what_one_does(small_run, tmp_path, count):
    run_by(count, "pipeline", f"--config={SMALL}", f"--workdir={tmp_path / 'run'}")
    for stage in ("target", "draft_sft", "draft"):
        ours, theirs = (read_metrics(path / stage / "metrics.jsonl") for path in (small_run.workdir, tmp_path / "run"))
        assert [record["step"] for record in ours] == [record["step"] for record in theirs]
        for one, other in zip(ours, theirs, strict=True):
            if "loss" in one:
                assert other["loss"] == pytest.approx(one["loss"], rel=RELATIVE), (stage, one["step"])
        ours, theirs = (params_of(small_run.run, path / stage) for path in (small_run.workdir, tmp_path / "run"))
        for (name, one), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
            assert np.linalg.norm(one - other) <= RELATIVE * np.linalg.norm(one), (stage, name)
    fingerprint = (tmp_path / "run" / "teacher" / "fingerprint.txt").read_text().strip()
    theirs = load_teacher(tmp_path / "run" / "teacher", fingerprint=fingerprint).beams
    own = (small_run.workdir / "teacher" / "fingerprint.txt").read_text().strip()
    np.testing.assert_array_equal(theirs, load_teacher(small_run.workdir / "teacher", fingerprint=own).beams)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    for name in ("target", "popularity", "covisitation"):
        assert report["quality"][name] == small_run.report["quality"][name]
    for ours, theirs in zip(small_run.report["decoding"], report["decoding"], strict=True):
        for name in ("method", "K", "widths", "users", "target_calls_mean", "mismatched_users"):
            assert ours[name] == theirs[name], (name, ours["method"])


@pytest.mark.slow
def test_several_processes_write_the_lists_of_one(small_run, tmp_path):
    users = [{"user": f"u{n}", "items": list(range(n % 7))} for n in range(11)]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    files = f"--checkpoint={small_run.workdir}", f"--input={tmp_path / 'users.jsonl'}", "--k=6", "--chunk=4"
    lists = {}
    for count in (1, 2):
        run_by(count, "recommend", *files, f"--output={tmp_path / f'{count}.jsonl'}")
        lists[count] = [json.loads(line) for line in (tmp_path / f"{count}.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lists[2]] == [user["user"] for user in users]
    for one, other in zip(lists[1], lists[2], strict=True):
        assert one["items"] == other["items"]
        np.testing.assert_allclose(one["scores"], other["scores"], rtol=RELATIVE)
    assert {path.name for path in tmp_path.iterdir()} == {"users.jsonl", "1.jsonl", "2.jsonl"}


@pytest.mark.slow
def test_several_processes_sweep_as_one_and_refuse_to_sweep_two_things(small_run, tmp_path):
    files = f"--config={SWEEP}", f"--workdir={tmp_path / 'sweep'}", f"--borrow={small_run.workdir}"
    differ = begin(2, "sweep", *files, "--config.common.train_align.epochs=1.|NUMBER")
    said = [process.communicate(timeout=120)[1] for process in differ]
    assert all("error: config or --only of process 1 is not that of process 0" in one for one in said), said
    assert not (tmp_path / "sweep").exists()
    run_by(2, "sweep", *files)
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [row["run"] for row in rows] == ["kd", "words"]
    assert (tmp_path / "sweep" / "kd_0" / "target").is_symlink()


def begin_until(pattern, directory, *arguments):
    """Two processes of the pipeline in that directory, once a file there matches the pattern."""
    begun = begin(2, "pipeline", f"--config={SMALL}", f"--workdir={directory}", *arguments)
    while not list(directory.glob(pattern)):
        assert all(process.poll() is None for process in begun), begun[0].communicate()[1][-3000:]
        time.sleep(0.02)
    return begun


@pytest.mark.slow
def test_several_processes_stop_together_outside_training_too(tmp_path):
    more = ["--config.teacher.batch_size=2", "--config.evaluate.grid_beams=(3,5,7)"]
    for pattern, stage in (
        ("teacher/part-00000.parquet", "teacher"),
        ("evaluation/*/quality_seen_kept.json", "evaluation"),
    ):
        begun = begin_until(pattern, tmp_path / "run", *more)
        begun[1].terminate()
        said = [process.communicate(timeout=300)[1] for process in begun]
        assert [process.returncode for process in begun] == [75, 75], said
        assert all(f"{stage}: SIGTERM came, what is done is saved; run the same" in one for one in said), said


@pytest.mark.slow
def test_sigterm_before_any_training_stops_all_at_its_first_step(tmp_path):
    begun = begin_until("data", tmp_path / "run")
    begun[1].terminate()
    said = [process.communicate(timeout=300)[1] for process in begun]
    assert [process.returncode for process in begun] == [75, 75], said
    assert all("target: SIGTERM came, saved at step " in one for one in said), said
    run_by(2, "train_target", f"--config={SMALL}", f"--workdir={tmp_path / 'run'}")


@pytest.mark.slow
def test_who_loses_the_others_says_so_and_what_to_do(tmp_path):
    begun = begin_until("target/metrics.jsonl", tmp_path / "run", "--config.train_target.epochs=1000.0")
    begun[1].kill()
    begun[1].communicate()
    _, said = begun[0].communicate(timeout=120)
    assert begun[0].returncode != 0
    assert "error: process 0 lost the others" in said, said[-3000:]
    assert "start all of them again" in said, said[-3000:]
