"""launch.own: five commands from a log to lists of named items."""

import shutil
import subprocess

import pytest

import layouts
from atspeed_jax.data.sources import SourceError
from configs.own import get_config, options_for
from launch import own, own_commands
from launch.command_line import CommandLineError
from launch.own_record import only_one
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
    monkeypatch.setattr(own_commands.subprocess, "run", run)
    return found


def told(*more):
    with flags_of(own, ["--data=log.csv", "--items=items.csv", *more]):
        own.own()


def test_five_commands_with_defaults_by_size(commands, tmp_path):
    told("--ingest=--core=2", "--build_ids=--codes=8", "--pipeline=--tune=false", "--k=2", "--tune")
    assert commands == [
        ["ingest", "--interactions=log.csv", "--items=items.csv", "--output=runs/log_data", "--core=2"],
        ["build_ids", "--data_dir=runs/log_data", "--codes=8"],
        [
            "pipeline",
            "--config=configs/own.py:2,small,3",
            "--data_dir=runs/log_data",
            "--workdir=runs/log",
            "--tune=false",
        ],
        ["tune_decoder", "--workdir=runs/log", "--beams=2", "--batch_sizes=1,64", "--drafters=draft"],
        [
            "recommend",
            "--workdir=runs/log",
            "--input=runs/log_data/histories.parquet",
            "--output=runs/log/recommendations.jsonl",
            "--k=2",
        ],
    ]


def test_what_is_finished_is_not_done_again(commands, tmp_path):
    told()
    (tmp_path / "runs" / "log").mkdir()
    (tmp_path / "runs" / "log" / "recommendations.jsonl").write_text("")
    for again in ([], ["--k=3"]):
        commands.clear()
        told(*again)
        assert [main for main, *_ in commands] == ["pipeline"]
    with pytest.raises(CommandLineError, match=r"--k=2: .*recommendations.jsonl holds lists of 3 items\. .*move that"):
        told("--k=2")


def test_a_small_log_is_tuned_on_request_alone(commands):
    told()
    assert [main for main, *_ in commands] == ["ingest", "build_ids", "pipeline", "recommend"]


def test_flags_of_what_is_there_are_refused_if_they_differ(commands, tmp_path):
    flags = ["--ingest=--core=2", "--ingest=--time=bought", "--build_ids=--codes=8"]
    told(*flags)
    commands.clear()
    told()  # those that it was made with stand
    told(*reversed(flags))
    assert [main for main, *_ in commands] == ["pipeline", "recommend"] * 2
    with pytest.raises(
        CommandLineError, match=r"--ingest=--core=3: .*log_data was made with --core=2 --time=bought\. Lea"
    ):
        told("--ingest=--core=3")
    with pytest.raises(CommandLineError, match=r"--build_ids=--codes=9: .*log_data was made with --codes=8\. Leave"):
        told("--build_ids=--codes=9")
    (tmp_path / "runs" / "log_data" / "own.json").unlink()
    with pytest.raises(CommandLineError, match=r"--ingest=--core=2: .* was made by another command than this one"):
        told("--ingest=--core=2")
    told()


def test_lists_are_no_longer_than_the_catalog(commands):
    told()
    assert commands[-1][-1] == "--k=3", "the catalog has 3 ids"
    with pytest.raises(CommandLineError, match=r"--k=4: the 3 ids of runs/log_data are fewer; give --k=3 or less"):
        told("--k=4", "--workdir=runs/log")


def test_a_killed_build_of_ids_gets_new_flags(commands, tmp_path):
    told("--build_ids=--codes=8")
    (tmp_path / "runs" / "log_data" / "index.parquet").unlink()
    told("--build_ids=--codes=9")
    told("--build_ids=--codes=9")


def test_two_at_once_are_refused(commands, tmp_path):
    with (
        only_one(tmp_path / "runs" / "log"),
        pytest.raises(CommandLineError, match=r"another launch.own works on runs/log"),
    ):
        told()
    assert commands == []
    told()


def test_a_pattern_of_files_is_found_again(commands, tmp_path):
    (tmp_path / "items.csv").rename(tmp_path / "things.csv")
    (tmp_path / "items.csv").write_text("x\n")  # as the fixture has it
    for _ in range(2):
        told("--data=l?g.csv", "--workdir=runs/log")
    with pytest.raises(CommandLineError, match=r"--data=l\?g.csv gives the run no name: give --workdir=runs/NAME too"):
        told("--data=l?g.csv")
    with pytest.raises(CommandLineError, match="gives the run no name"):
        told("--data=a.csv,b.csv")
    with pytest.raises(CommandLineError, match="gives the run no name"):
        told("--data=.csv")


def test_a_log_that_has_changed_is_refused(commands, tmp_path):
    told()
    (tmp_path / "log.csv").write_text("more\n" * 9)
    with pytest.raises(
        SourceError, match=r"log_data was made of .*/log.csv had 2 bytes then, and has 45 now: remove the"
    ):
        told()
    assert len(commands) == 4


@pytest.mark.parametrize("code", [75, 1])
def test_a_command_that_fails_ends_all(commands, monkeypatch, capsys, code):
    monkeypatch.setattr(own_commands.subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, code))
    with pytest.raises(SystemExit) as ended:
        told()
    assert ended.value.code == code
    hint = "A flag of launch.ingest stands behind --ingest= here: --ingest=--time=NAME" in capsys.readouterr().out
    assert hint == (code == 1), "nothing to change after a stop"


@pytest.mark.parametrize(
    ("interactions", "options"),
    [(0, "4,small"), (50_000, "4,small"), (50_001, "4,medium"), (3_000_000, "4,medium"), (10**8, "4,large")],
)
def test_a_size_is_chosen_by_the_interactions(interactions, options):
    assert options_for(interactions, 4, 20) == options
    assert options_for(interactions, 4, 19) == f"{options},19"


@pytest.mark.parametrize(
    "options", ["0,small", "9,small", "4,tiny", "4", "small", "4,small,", "4,small,0", "4,small,9,9"]
)
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match=r"expected the number of codes of an id, 1 to 8, and one of small, medium"):
        get_config(options)
