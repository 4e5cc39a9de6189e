"""launch.own: five commands from a log to lists of named items."""

import shutil
import subprocess

import pytest

import layouts
from atspeed_jax.data.sources import SourceError
from configs.own import get_config, options_for
from launch import own
from main_flags import flags_of


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would run; launch.ingest and launch.build_ids leave what they would leave."""
    found = []

    def run(words, check):
        main, *given = words[2:]
        found.append([main.removeprefix("launch."), *given])
        if main == "launch.ingest":
            files = [tmp_path / "log.csv", tmp_path / "items.csv"]
            layouts.write_ingested(tmp_path / "runs" / "log_data", sources=files)
            (tmp_path / "runs" / "log_data" / "index.parquet").rename(tmp_path / "index.parquet")
        if main == "launch.build_ids":
            shutil.copy(tmp_path / "index.parquet", tmp_path / "runs" / "log_data")
        return subprocess.CompletedProcess(words, 0)

    for name in ("log.csv", "items.csv"):
        (tmp_path / name).write_text("x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own.subprocess, "run", run)
    return found


def told(*more):
    with flags_of(own, ["--data=log.csv", "--items=items.csv", *more]):
        own.own()


def test_five_commands_with_defaults_by_size(commands, tmp_path):
    told("--ingest=--core=2", "--build_ids=--codes=8", "--pipeline=--tune=false", "--k=5")
    assert commands == [
        ["ingest", "--interactions=log.csv", "--items=items.csv", "--output=runs/log_data", "--core=2"],
        ["build_ids", "--data_dir=runs/log_data", "--codes=8"],
        [
            "pipeline",
            "--config=configs/own.py:2,small",
            "--data_dir=runs/log_data",
            "--workdir=runs/log",
            "--tune=false",
        ],
        ["tune_decoder", "--workdir=runs/log", "--beams=5", "--batch_sizes=1,64", "--drafters=draft"],
        [
            "recommend",
            "--workdir=runs/log",
            "--input=runs/log_data/histories.parquet",
            "--output=runs/log/recommendations.jsonl",
            "--k=5",
        ],
    ]


def test_what_is_finished_is_not_done_again(commands, tmp_path):
    told()
    (tmp_path / "runs" / "log").mkdir()
    (tmp_path / "runs" / "log" / "recommendations.jsonl").write_text("")
    commands.clear()
    told()
    assert [main for main, *_ in commands] == ["pipeline"]


def test_a_log_that_has_changed_is_refused(commands, tmp_path):
    told()
    (tmp_path / "log.csv").write_text("more\n" * 9)
    with pytest.raises(
        SourceError, match=r"log_data was made of .*'bytes': 2.*but .*'bytes': 45.*: remove the directory"
    ):
        told()
    assert len(commands) == 5


def test_a_command_that_fails_ends_all(commands, monkeypatch):
    monkeypatch.setattr(own.subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 75))
    with pytest.raises(SystemExit) as ended:
        told()
    assert ended.value.code == 75


@pytest.mark.parametrize(
    ("interactions", "options"),
    [(0, "4,small"), (50_000, "4,small"), (50_001, "4,medium"), (3_000_000, "4,medium"), (10**8, "4,large")],
)
def test_a_size_is_chosen_by_the_interactions(interactions, options):
    assert options_for(interactions, 4) == options


@pytest.mark.parametrize("options", ["0,small", "9,small", "4,tiny", "4", "small"])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match=r"expected the number of codes of an id, 1 to 8, and one of small, medium"):
        get_config(options)
