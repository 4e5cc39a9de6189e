"""The mains as a user meets them: what they print, how they end, what they leave alone.

All run as children of one process (tests/helpers/mains.py), because starting Python and importing JAX takes seconds.
"""

import contextlib
import json
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

import small
from atspeed_jax.training.train import TrainingDiverged
from launch import stage
from mains import ALL, ROOT, SMALL, run_mains

REAL = "configs/lcrec_small.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_run) -> Path:
    """Directories that are foreign, empty, a file, and a finished run."""
    place = tmp_path_factory.mktemp("mains")
    (place / "foreign").mkdir()
    (place / "foreign" / "thesis.txt").write_text("precious")
    (place / "empty").mkdir()
    (place / "file").write_text("")
    shutil.copytree(small_run.workdir, place / "finished")
    (place / "prepared").mkdir()
    shutil.copytree(small_run.workdir / "data", place / "prepared" / "data")
    shutil.copy(small_run.workdir / "experiment.json", place / "prepared")
    text = (ROOT / SMALL).read_text()
    (place / "odd.py").write_text(text.replace("gamma=2", "gama=2"))
    (place / "broken.py").write_text("def get_config():\n    return dict(\n")
    return place


# main, workdir, config, further arguments, what the error says
BAD = {
    "no data directory": ("pipeline", "new1", REAL, [], "error: this config reads a data directory: give --data_dir="),
    "a data directory that is not there": (
        "prepare_data",
        "new1",
        REAL,
        ["--data_dir=nowhere"],
        "error: nowhere: no such data directory; give --data_dir",
    ),
    "an empty data directory": ("pipeline", "new1", REAL, ["--data_dir={place}/empty"], "the data directory is empty"),
    "a data directory nobody reads": ("pipeline", "new2", SMALL, ["--data_dir={place}"], "reads no directory, but"),
    "an unknown field in the file": (
        "pipeline",
        "new2",
        "{place}/odd.py",
        [],
        "error: config.decode.gama is unknown; did you mean config.decode.gamma?",
    ),
    "an unknown field on the command line": (
        "pipeline",
        "new2",
        SMALL,
        ["--config.target.hiden_size=8"],
        f"error: config.target.hiden_size is unknown; {SMALL} has no such field: did you mean config.target.hidden_",
    ),
    "a config file that does not run": (
        "pipeline",
        "new2",
        "{place}/broken.py",
        [],
        "error: config file {place}/broken.py, line 2: SyntaxError: ",
    ),
    "a value of the wrong kind": ("pipeline", "new2", SMALL, ["--config.target.hidden_size=big"], "hidden_size=big"),
    "a config that is not there": ("pipeline", "new2", "configs/tini.py", [], "error: there is no config file configs"),
    "a foreign directory": ("pipeline", "foreign", SMALL, [], "error: workdir {place}/foreign is not empty and was"),
    "a directory that cannot be made": ("pipeline", "file/below", SMALL, [], "file/below cannot be made or written"),
    "widths that cannot work": (
        "pipeline",
        "widths",
        SMALL,
        ["--config.decode.widths=('all',9)"],
        "error: config.decode.widths: width 9 of level 2 is below min(K=10, 14 prefixes",
    ),
    "another config than the finished one": (
        "pipeline",
        "finished",
        SMALL,
        ["--config.target.hidden_size=8"],
        "error: {place}/finished was trained with another config (recorded -> given): config.target.hidden_size: 16 -",
    ),
    "a flag that would change what was trained": (
        "evaluate",
        "finished",
        None,
        ["--config.evaluate.batch_size=2", "--config.train_target.epochs=3"],
        "error: {place}/finished was trained with another config (recorded -> given): config.train_target.epochs: 2",
    ),
    "a misspelled field of a run": (
        "evaluate",
        "finished",
        None,
        ["--config.decode.gama=1"],
        "error: config.decode.gama is unknown; the record of {place}/finished has no such field: did you mean ",
    ),
    "nothing to go on with": (
        "pipeline",
        "new3",
        None,
        [],
        "error: there is no run in {place}/new3: give --config=FIL",
    ),
    "nothing to measure": (
        "evaluate",
        "new3",
        SMALL,
        [],
        "error: there is no run in {place}/new3 (no experiment.json)",
    ),
    "a field of no run": (
        "evaluate",
        "new3",
        None,
        ["--config.decode.gamma=1"],
        "error: --config.decode.gamma changes",
    ),
    "a stage out of turn": ("make_teacher", "prepared", SMALL, [], "prepared/target does not exist"),
}


@pytest.fixture(scope="module")
def ended(place):
    """Every case of BAD, a second run of a finished pipeline, one that was asked to be talkative, and a right start of
    the run whose first was refused for its widths."""

    def filled(text):
        return text.replace("{place}", str(place))

    cases = [
        (name, place / workdir, config and filled(config), list(map(filled, more)), "")
        for name, workdir, config, more, _ in BAD.values()
    ]
    before = small.snapshot(place)
    cases += [
        ("pipeline", place / "finished", None, [], ""),
        ("train_target", place / "finished", SMALL, ["--verbosity=0"], ""),
        ("prepare_data", place / "widths", SMALL, [], ""),
    ]
    *bad, again, talkative, rightly = run_mains(cases)
    after = small.snapshot(place)
    return SimpleNamespace(
        bad=dict(zip(BAD, bad, strict=True)),
        again=again,
        talkative=talkative,
        rightly=rightly,
        before=before,
        after=after,
    )


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_ends_in_one_clear_line(ended, place, case):
    result, expected = ended.bad[case], BAD[case][-1].replace("{place}", str(place))
    assert result.code == 1
    assert expected in result.err
    if expected.startswith("error: "):
        assert "Traceback" not in result.err
        last = result.err.splitlines()[-1]
        assert last.startswith(expected)
        assert result.err.count("error: ") == 1


def test_a_mistake_changes_nothing_that_was_there(ended):
    rewritten = {name for name in ended.before if ended.after.get(name) != ended.before[name]}
    assert {Path(name).name for name in rewritten} <= {"report.html", "report.json", "report.md"} | {
        Path(name).name for name in ended.before if name.endswith(".png")
    }
    new = {name for name in ended.after if name not in ended.before}
    ours = ("foreign", "empty", "finished", "file", "prepared", "new3")
    assert not [name for name in new if name.startswith(ours)]
    assert {name.partition("/")[0] for name in new} <= {"widths"}  # a start that was refused leaves nothing


def test_a_right_start_after_one_that_was_refused_makes_its_own_record(ended, place):
    assert ended.rightly.code == 0, ended.rightly.err
    assert "was trained with another config" not in ended.rightly.err
    assert json.loads((place / "widths" / "experiment.json").read_text())["decode"]["widths"] == ["all", 10]
    assert {entry.name for entry in (place / "widths").iterdir()} == {"data", "experiment.json"}


def test_a_finished_pipeline_prints_its_table_and_little_else(ended):
    assert ended.again.code == 0
    assert "Target calls" in ended.again.out
    assert "speculative, draft model" in ended.again.out
    assert "measuring" not in ended.again.out
    assert "Traceback" not in ended.again.err
    assert len(ended.again.err.splitlines()) < 5, ended.again.err


def test_orbax_speaks_only_when_asked(ended):
    assert ended.talkative.code == 0
    told = [line for line in ended.talkative.err.splitlines() if line.startswith("I")]
    assert len(told) > 5  # or the next line would show nothing
    assert not [line for line in ended.again.err.splitlines() if line.startswith("I")]


@pytest.mark.parametrize("error", [ValueError, TrainingDiverged])
def test_errors_end_in_one_line(monkeypatch, error):
    def fail(run):
        raise error("loss = nan\n  at step 7")

    monkeypatch.setattr(stage.app, "run", lambda body, flags_parser: body([]))
    monkeypatch.setattr(stage, "define_flags", stage.no_flags)
    monkeypatch.setattr(stage, "open_run", lambda **_: None)
    monkeypatch.setattr(stage.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(stage, "join_others", lambda several: None)
    with pytest.raises(SystemExit, match=r"^error: loss = nan at step 7$"):
        stage.main(fail)


def test_a_programmers_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(stage.app, "run", lambda body, flags_parser: body([]))
    monkeypatch.setattr(stage, "define_flags", stage.no_flags)
    monkeypatch.setattr(stage, "open_run", lambda **_: None)
    monkeypatch.setattr(stage.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(stage, "join_others", lambda several: None)
    with pytest.raises(ZeroDivisionError):
        stage.main(lambda run: 1 / 0)


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ({}, []),
        ({"distributed": True}, [(None, None, None)]),
        ({"num_processes": 2}, [(None, 2, None)]),  # which `join` refuses, rather than one process on its own
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 0}, [("host:1", 2, 0)]),
    ],
)
def test_any_flag_of_several_processes_joins_them(monkeypatch, given, joined):
    found = []
    unset = dict.fromkeys(("distributed", "coordinator", "num_processes", "process_id"))
    monkeypatch.setattr(stage, "FLAGS", SimpleNamespace(**unset | given))
    monkeypatch.setattr(stage, "join", lambda *others: found.append(others))
    stage.join_others(True)
    stage.join_others(False)  # one process may be told so: launch/pods always does
    assert found == 2 * joined
    monkeypatch.setattr(stage.jax, "process_count", lambda: 2)
    stage.join_others(True)
    refused = pytest.raises(stage.ProcessError, match=r"in one process, but 2 were started: start it once.*NODES=1")
    with refused if joined else contextlib.nullcontext():
        stage.join_others(False)


@pytest.mark.slow
def test_every_main_can_be_the_only_process(tmp_path):
    """As launch/pods starts it with NODES=1: it gets as far as its first complaint about the config or a file."""
    given = {"devices": 2, "suite": "trie", "json": tmp_path / "no" / "file"}
    cases = []
    for main in ALL:
        text = (ROOT / "launch" / f"{main}.py").read_text()
        required = re.search(r"required=\((.*?)\)", text)
        names = re.findall(r'"(\w+)"', required[1]) if required else ["config", "workdir"]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        alone = ["--distributed", f"--coordinator=localhost:{port}", "--num_processes=1", "--process_id=0"]
        config = {"config": SMALL if main == "sweep" else "no.py"}  # which is no sweep
        more = [f"--{name}={(given | config).get(name, tmp_path / name)}" for name in names]
        cases.append((main, None, None, alone + more, ""))
    ended = run_mains(cases)
    assert len(cases) >= 12
    for (name, *_), result in zip(cases, ended, strict=True):
        assert result.code == 1, (name, result.err)
        assert "error: " in result.err, (name, result.err)
        assert "one process" not in result.err, (name, result.err)
        assert "did not join" not in result.err, (name, result.err)


@pytest.mark.parametrize("text", ["3", "4:2", "0:1", "a:b", "1:2:3"])
def test_steps_to_trace_that_are_none_are_refused(text):
    with pytest.raises(stage.ConfigError, match=f"profile_steps={text}: expected FIRST:LAST"):
        stage._steps(text)
    assert stage._steps("10:12") == (10, 12)
    assert stage._steps(None) is None
