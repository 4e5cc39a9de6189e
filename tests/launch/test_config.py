import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Literal, Optional

import pytest
from ml_collections import ConfigDict, config_dict

from launch.config import MARKER_FILE, ConfigError, WorkdirError, check_workdir, load


@dataclass(frozen=True)
class OptimConfig:
    learning_rate: float
    warmup_steps: int

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate = {self.learning_rate}, expected more than 0")


@dataclass(frozen=True)
class TextSource:
    data_dir: str


@dataclass(frozen=True)
class MadeUpSource:
    users: int
    seed: int


@dataclass(frozen=True)
class Experiment:
    name: str
    optim: OptimConfig
    widths: tuple[int | str, ...]
    norm: Literal["vocab", "trie"]
    limit: int | None
    source: TextSource | MadeUpSource
    betas: tuple[float, float]
    remat: bool
    stages: tuple[OptimConfig, ...] = ()
    note: Optional[str] = None  # noqa: UP045 (the older spelling is understood too)


def config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "toy",
            "optim": {"learning_rate": 1e-3, "warmup_steps": 100},
            "widths": ["all", 64, 96],
            "norm": "vocab",
            "limit": None,
            "source": {"users": 500, "seed": 0},
            "betas": (0.9, 0.95),
            "remat": False,
        }
    )


def test_every_kind_of_field_is_converted():
    raw = config()
    raw.stages = [{"learning_rate": 1, "warmup_steps": 2}, ConfigDict({"learning_rate": 0.5, "warmup_steps": 3})]
    experiment = load(raw, Experiment)
    assert experiment == Experiment(
        name="toy",
        optim=OptimConfig(1e-3, 100),
        widths=("all", 64, 96),
        norm="vocab",
        limit=None,
        source=MadeUpSource(500, 0),
        betas=(0.9, 0.95),
        remat=False,
        stages=(OptimConfig(1.0, 2), OptimConfig(0.5, 3)),
        note=None,
    )
    assert type(experiment.stages[0].learning_rate) is float
    hash(experiment)  # usable as a static argument


def test_plain_dicts_work_too_and_are_left_as_they_are():
    raw = config().to_dict()
    before = json.dumps(raw)
    assert load(raw, Experiment) == load(config(), Experiment)
    assert json.dumps(raw) == before


def test_references_and_placeholders():
    raw = config()
    raw.limit = raw.optim.get_ref("warmup_steps")
    raw.note = config_dict.placeholder(str)
    assert load(raw, Experiment).limit == 100
    raw.optim.warmup_steps = 7
    assert load(raw, Experiment).limit == 7
    raw.source = ConfigDict({"data_dir": config_dict.required_placeholder(str)})
    with pytest.raises(ConfigError, match=r"config.source.data_dir has no value.*--config.source.data_dir="):
        load(raw, Experiment)


def test_int_or_float_keeps_an_int():
    @dataclass(frozen=True)
    class Number:
        value: float | int

    assert type(load({"value": 3}, Number).value) is int
    assert type(load({"value": 3.0}, Number).value) is float


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.learning_rat", 1.0, "config.optim.learning_rat is unknown; did you mean config.optim.learning_rate?"),
        ("warmup_steps", 5, "config.warmup_steps is unknown; did you mean config.optim.warmup_steps?"),
        ("optim.zzz", 5, "config.optim.zzz is unknown; the nearest field there is config.optim."),
        ("source.uesrs", 5, "config.source.uesrs is unknown; did you mean config.source.users?"),
        ("optim.warmup_steps", "many", "config.optim.warmup_steps is 'many' (str), expected int"),
        ("optim.warmup_steps", 1.5, "config.optim.warmup_steps is 1.5 (float), expected int"),
        ("optim.warmup_steps", True, "config.optim.warmup_steps is True (bool), expected int"),
        ("optim.learning_rate", False, "config.optim.learning_rate is False (bool), expected float"),
        ("remat", 1, "config.remat is 1 (int), expected bool"),
        ("name", None, "config.name is None (NoneType), expected str"),
        ("norm", "items", "config.norm is 'items' (str), expected one of 'vocab', 'trie'"),
        ("limit", "none", "config.limit is 'none' (str), expected int or None"),
        ("widths", 64, "config.widths is 64 (int), expected a tuple of int or str"),
        ("widths", "all", "config.widths is 'all' (str), expected a tuple of int or str"),
        ("widths", ["all", 1.5], "config.widths[1] is 1.5 (float), expected int or str"),
        ("betas", (0.9,), "config.betas is (0.9,) with 1 entries, expected a tuple of (float, float)"),
        ("optim", 3, "config.optim is 3, expected the fields of OptimConfig: learning_rate, warmup_steps"),
        ("source", 3, "config.source is 3 (int), expected TextSource or MadeUpSource"),
        ("optim.learning_rate", -1.0, "config.optim: learning_rate = -1.0, expected more than 0"),
        ("stages", [{"learning_rate": 1}], "config.stages[0].warmup_steps is missing; expected int"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    raw = config().to_dict()
    place = raw
    *parents, name = path.split(".")
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(ConfigError) as error:
        load(raw, Experiment)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("path", ["name", "optim", "optim.warmup_steps", "source.seed", "remat"])
def test_a_missing_field_is_named(path):
    raw = config().to_dict()
    place = raw
    *parents, name = path.split(".")
    for parent in parents:
        place = place[parent]
    del place[name]
    with pytest.raises(ConfigError, match=f"config.{path} is missing; expected"):
        load(raw, Experiment)


def test_a_type_that_is_not_understood_is_the_programmers_error():
    @dataclass(frozen=True)
    class Odd:
        values: dict[str, int]

    with pytest.raises(TypeError, match="config.values: type"):
        load({"values": {"a": 1}}, Odd)


EXPERIMENT = load(config(), Experiment)


def test_a_new_workdir_is_made_and_marked(tmp_path):
    workdir = tmp_path / "runs" / "toy"
    assert check_workdir(workdir, EXPERIMENT) == []
    assert [path.name for path in workdir.iterdir()] == [MARKER_FILE]
    marker = json.loads((workdir / MARKER_FILE).read_text(encoding="utf-8"))
    assert marker["optim"] == {"learning_rate": 1e-3, "warmup_steps": 100} and marker["widths"] == ["all", 64, 96]


def test_our_workdir_may_hold_anything_and_is_not_rewritten(tmp_path):
    check_workdir(tmp_path, EXPERIMENT)
    (tmp_path / "target").mkdir()
    marker = (tmp_path / MARKER_FILE).read_bytes()
    assert check_workdir(tmp_path, EXPERIMENT) == []
    changed = dataclasses.replace(EXPERIMENT, widths=("all", 8), optim=OptimConfig(2e-3, 100))
    assert check_workdir(tmp_path, changed) == [
        "optim.learning_rate: 0.001 -> 0.002",
        "widths: ['all', 64, 96] -> ['all', 8]",
    ]
    assert (tmp_path / MARKER_FILE).read_bytes() == marker


def test_a_field_newer_than_the_workdir_is_no_difference_at_its_default(tmp_path):
    check_workdir(tmp_path, EXPERIMENT)
    marker = json.loads((tmp_path / MARKER_FILE).read_text(encoding="utf-8"))
    older = {name: value for name, value in marker.items() if name != "note"}
    (tmp_path / MARKER_FILE).write_text(json.dumps(older), encoding="utf-8")
    assert check_workdir(tmp_path, EXPERIMENT) == []
    assert check_workdir(tmp_path, dataclasses.replace(EXPERIMENT, note="tried")) == ["note: None -> tried"]


def test_a_config_of_another_version_is_compared_as_it_stands(tmp_path):
    check_workdir(tmp_path, EXPERIMENT)
    marker = json.loads((tmp_path / MARKER_FILE).read_text(encoding="utf-8"))
    (tmp_path / MARKER_FILE).write_text(json.dumps(marker | {"gone": 1}), encoding="utf-8")
    assert check_workdir(tmp_path, EXPERIMENT) == ["gone: 1 -> absent"]


def test_fields_that_come_and_go_are_named(tmp_path):
    check_workdir(tmp_path, EXPERIMENT)
    other = dataclasses.replace(EXPERIMENT, source=TextSource("data"))
    assert check_workdir(tmp_path, other) == [
        "source.users: 500 -> absent",
        "source.seed: 0 -> absent",
        "source.data_dir: absent -> data",
    ]


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(WorkdirError, match=r"is not empty and was not made by this program.*thesis.txt.*--workdir"):
        check_workdir(tmp_path, EXPERIMENT)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_run_killed_while_marking_starts_again(tmp_path):
    (tmp_path / f".{MARKER_FILE}.partial").write_text('{"na')
    assert check_workdir(tmp_path, EXPERIMENT) == []
    assert [path.name for path in tmp_path.iterdir()] == [MARKER_FILE]


@pytest.mark.parametrize("content", ["not json", "[1, 2]", ""])
def test_a_damaged_marker_is_named_and_kept(tmp_path, content):
    (tmp_path / MARKER_FILE).write_text(content)
    with pytest.raises(WorkdirError, match=MARKER_FILE):
        check_workdir(tmp_path, EXPERIMENT)
    assert (tmp_path / MARKER_FILE).read_text() == content


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file"):
        check_workdir(tmp_path / "file", EXPERIMENT)
    with pytest.raises(WorkdirError, match="cannot be made or written"):
        check_workdir(tmp_path / "file" / "below", EXPERIMENT)


def test_an_unwritable_workdir(tmp_path, monkeypatch):
    """By a stand-in for the permissions, which root is not bound by."""
    check_workdir(tmp_path, EXPERIMENT)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WorkdirError, match="is not writable"):
        check_workdir(tmp_path, EXPERIMENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_parent(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match="cannot be made or written"):
        check_workdir(tmp_path / "new", EXPERIMENT)
