"""What is recorded in experiment.json, what may differ from it, and directories that are no run."""

import dataclasses
import json
import os
import re

import pytest

from atspeed_jax.runs.experiment import PretrainedConfig, ServeConfig
from atspeed_jax.runs.record import (
    MARKER_FILE,
    Difference,
    WorkdirError,
    is_run,
    open_made,
    open_trained,
    record_config,
    recorded,
)
from launch.config import load
from small import changed


@pytest.fixture
def run(small_config, tmp_path):
    """A function that makes stages of a run of the small config, `finished` ones with their last file."""
    workdir = tmp_path / "run"
    record_config(workdir, small_config)

    def made(*stages, finished=False):
        for stage in stages:
            (workdir / stage).mkdir()
            if finished:
                (workdir / stage / "metadata.json").write_text("{}")
        return workdir

    return made


def test_a_new_workdir_is_made_and_recorded(small_config, tmp_path):
    workdir = tmp_path / "runs" / "toy"
    assert open_made(workdir, small_config) == (small_config, None, ())
    assert not workdir.parent.exists()  # nothing is written while it may still be refused
    record_config(workdir, small_config)
    assert [path.name for path in workdir.iterdir()] == [MARKER_FILE]
    assert is_run(workdir)
    fields = json.loads((workdir / MARKER_FILE).read_text(encoding="utf-8"))
    assert fields["decode"]["widths"] == ["all", 10]
    assert fields["mesh"] == {"data": None, "fsdp": 1, "tensor": 1}
    assert recorded(workdir) == small_config


def test_the_directory_of_a_base_is_recorded_as_an_absolute_path(small_config, tmp_path, monkeypatch):
    given = dataclasses.replace(small_config, target=PretrainedConfig("bases/llama", None))
    workdir = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    record_config(workdir, given)
    (workdir / "target").mkdir()
    assert open_made(workdir, given).config == given
    assert open_trained(workdir, given).config.target.directory == str(tmp_path / "bases" / "llama")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert recorded(workdir).target.directory == str(tmp_path / "bases" / "llama")
    with pytest.raises(WorkdirError, match=r"config\.target\.directory: /"):
        open_made(workdir, given)


def test_what_no_stage_was_made_with_may_change(small_config, run):
    """And only a start that was not refused by then is recorded."""
    for workdir in (run(), run("data", "target")):
        for path, value in (("decode.widths", ("all", 9)), ("evaluate.users", 3), ("align.alpha", 0.5)):
            before, config = recorded(workdir), changed(small_config, path, value)
            assert open_made(workdir, config) == (config, None, ())
            assert recorded(workdir) == before
            record_config(workdir, config)
            assert recorded(workdir) == config


def test_two_starts_at_once_cannot_both_be_recorded(small_config, run):
    other = changed(small_config, "train_target.seed", 1)
    workdir = run("data")
    assert open_made(workdir, other).config == other
    (workdir / "target").mkdir()  # by the first one, meanwhile
    with pytest.raises(WorkdirError, match=r"train_target\.seed: 0 -> 1"):
        record_config(workdir, other)
    assert recorded(workdir) == small_config


def test_the_directory_of_the_stage_that_begins_is_not_in_its_way(small_config, run):
    """The stage has locked it, and its own record says that nothing of another config is in it."""
    other = changed(small_config, "train_target.seed", 1)
    workdir = run("data", "target")
    record_config(workdir, other, "target")
    assert recorded(workdir) == other
    with pytest.raises(WorkdirError, match=r"train_target\.seed: 1 -> 0"):
        record_config(workdir, small_config, "draft_sft")


@pytest.mark.parametrize(
    ("stages", "path", "value", "told"),
    [
        (["data"], "data.synthetic.seed", 1, "config.data.synthetic.seed: 0 -> 1"),
        (["data", "target"], "data.history", 3, "config.data.history: 4 -> 3"),
        (["data", "target"], "train_target.epochs", 3.0, "config.train_target.epochs: 2.0 -> 3.0"),
        (["data", "target", "teacher"], "decode.score_norm", "trie", "config.decode.score_norm: vocab -> trie"),
        (["draft_sft"], "draft.layers", 2, "config.draft.layers: 1 -> 2"),
        (["draft"], "decode.widths", ("all", 11), "config.decode.widths: ['all', 10] -> ['all', 11]"),
        (["draft"], "align.alpha", 0.5, "config.align.alpha: 0.9 -> 0.5"),
    ],
)
def test_what_a_begun_stage_was_made_with_stays(small_config, run, stages, path, value, told):
    workdir = run(*stages)
    message = f"{workdir} was trained with another config (recorded -> given): {told}; --workdir={workdir} without"
    with pytest.raises(WorkdirError, match=re.escape(message)):
        open_made(workdir, changed(small_config, path, value))
    with pytest.raises(WorkdirError):
        record_config(workdir, changed(small_config, path, value))
    assert recorded(workdir) == small_config


def test_a_link_to_nowhere_is_a_begun_stage(small_config, run):
    workdir = run()
    (workdir / "target").symlink_to(workdir / "gone")
    with pytest.raises(WorkdirError, match=r"train_target\.seed: 0 -> 1"):
        open_made(workdir, changed(small_config, "train_target.seed", 1))


def test_few_of_many_differences_are_named(small_config, run):
    train = dataclasses.replace(small_config.train_target, epochs=1.0, seed=1, batch_size=8, log_every=2)
    with pytest.raises(WorkdirError) as error:
        open_trained(run("target"), dataclasses.replace(small_config, train_target=train))
    text = str(error.value)
    assert "train_target.log_every: 1 -> 2, config.train_target.seed: 0 -> 1, config.train_target.epochs" in text
    assert ", ...; --workdir=" in text
    assert text.count("->") == 1 + 3


SERVED = {"decode.widths": ("all", "all"), "decode.score_norm": "trie", "evaluate.batch_size": 2, "mesh.tensor": 2}


@pytest.mark.parametrize("opened", [open_trained, open_made])
def test_how_a_trained_run_is_served_is_chosen_each_time(small_config, run, opened):
    workdir = run("data", "target", "teacher", "draft_sft", "draft", finished=True)
    assert opened(workdir, small_config) == (small_config, ServeConfig.of(small_config), [])
    given = small_config
    for path, value in SERVED.items():
        given = changed(given, path, value)
    found = opened(workdir, given)
    assert found.config == recorded(workdir) == small_config  # it stays what it was trained for
    assert found.serve == ServeConfig(given.decode, given.evaluate, given.mesh)
    assert [one.path for one in found.chosen] == list(SERVED)
    assert str(found.chosen[2]) == "config.evaluate.batch_size: 1 -> 2"
    with pytest.raises(WorkdirError, match=r"config\.align\.alpha: 0\.9 -> 0\.5; --workdir=.*run without these fields"):
        opened(workdir, changed(given, "align.alpha", 0.5))


def test_a_main_that_trains_nothing_writes_nothing(small_config, run, tmp_path):
    workdir = run("data")
    marker = (workdir / MARKER_FILE).read_bytes()
    found = open_trained(workdir, changed(small_config, "decode.gamma", 1))
    assert found.config == small_config
    assert found.serve.decode.gamma == 1
    with pytest.raises(WorkdirError, match=r"config\.align\.alpha"):  # nothing was made with it, and nothing will be
        open_trained(workdir, changed(small_config, "align.alpha", 0.5))
    assert (workdir / MARKER_FILE).read_bytes() == marker
    with pytest.raises(
        WorkdirError, match=r"there is no run in .*nothing \(no experiment\.json\); give the directory of"
    ):
        open_trained(tmp_path / "nothing", small_config)
    assert not (tmp_path / "nothing").exists()


def test_a_name_is_a_label(small_config, run):
    workdir = run("data", "target", "draft", finished=True)
    assert open_made(workdir, dataclasses.replace(small_config, name="other")).chosen == []


def test_a_field_newer_than_the_record_is_at_its_default(small_config, run):
    workdir = run("draft")
    fields = json.loads((workdir / MARKER_FILE).read_text(encoding="utf-8"))
    del fields["mesh"], fields["decode"]["budget"]
    (workdir / MARKER_FILE).write_text(json.dumps(fields), encoding="utf-8")
    assert recorded(workdir) == small_config == load(fields, type(small_config))
    with pytest.raises(WorkdirError, match=r"config\.decode\.budget: None -> 12"):
        open_made(workdir, changed(small_config, "decode.budget", 12))


def test_a_record_of_another_version_is_refused(small_config, run):
    workdir = run()
    fields = json.loads((workdir / MARKER_FILE).read_text(encoding="utf-8"))
    (workdir / MARKER_FILE).write_text(json.dumps(fields | {"gone": 1}), encoding="utf-8")
    with pytest.raises(
        WorkdirError, match=r"experiment\.json is not of this version of the program: config\.gone is unk"
    ):
        open_made(workdir, small_config)


def test_a_difference_of_fields_that_come_and_go(small_config, run):
    workdir = run()
    other = changed(changed(small_config, "data.source", "atspeed"), "data.synthetic", None)
    record_config(workdir, other)
    (workdir / "data").mkdir()
    with pytest.raises(
        WorkdirError, match=r"config\.data\.source: atspeed -> synthetic, config\.data\.synthetic: None -> {"
    ):
        open_made(workdir, small_config)
    assert str(Difference("a.b", "absent", 60 * "x")) == f"config.a.b: absent -> {60 * 'x'}"
    assert str(Difference("a.b", 61 * "x", 1)) == f"config.a.b: {60 * 'x'}... -> 1"


def test_a_foreign_directory_is_left_alone(small_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(WorkdirError, match=r"is not empty and was not made by this program.*thesis.txt.*--workdir"):
        open_made(tmp_path, small_config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_run_killed_while_recording_starts_again(small_config, tmp_path):
    (tmp_path / f".{MARKER_FILE}.partial").write_text('{"na')
    record_config(tmp_path, small_config)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER_FILE]


@pytest.mark.parametrize("content", ["not json", "[1, 2]", ""])
def test_a_damaged_record_is_named_and_kept(small_config, tmp_path, content):
    (tmp_path / MARKER_FILE).write_text(content)
    for opened in (open_made, open_trained):
        with pytest.raises(WorkdirError, match=f"{MARKER_FILE} (cannot be read|holds no config).*restore it"):
            opened(tmp_path, small_config)
    assert (tmp_path / MARKER_FILE).read_text() == content


def test_a_file_is_no_workdir(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file"):
        open_made(tmp_path / "file", small_config)
    with pytest.raises(WorkdirError, match="cannot be made or written"):
        open_made(tmp_path / "file" / "below", small_config)
    for name in ("file", "file/below"):
        with pytest.raises(WorkdirError, match="there is no run in"):
            open_trained(tmp_path / name, small_config)


def test_an_unwritable_workdir(small_config, tmp_path, monkeypatch):
    """By a stand-in for the permissions, which root is not bound by."""
    record_config(tmp_path, small_config)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for workdir in (tmp_path, tmp_path / "new"):
        with pytest.raises(WorkdirError, match=f"workdir {tmp_path} is not writable"):
            open_made(workdir, small_config)
    assert open_trained(tmp_path, small_config).config == small_config


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_parent(small_config, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match="is not writable"):
        open_made(tmp_path / "new", small_config)
