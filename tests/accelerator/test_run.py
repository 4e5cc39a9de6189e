"""The run: limits, parts that fail, and what a second start measures."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atspeed_jax.accelerator import run
from atspeed_jax.accelerator.parts import Part, Plan
from atspeed_jax.accelerator.run import limited, main, plan_of, run_all
from atspeed_jax.accelerator.steps import StepSuite
from atspeed_jax.benchmarks.decode_cells import SuiteError
from atspeed_jax.benchmarks.pair import write_pair
from tiny_pair import tiny_pair

ROOT = Path(__file__).resolve().parents[2]
PARTS = [Part(name, 100.0, StepSuite("train", rows=rows)) for rows, name in enumerate(("one", "two", "three"), 1)]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "pair").write_bytes(b"a pair")
    return tmp_path


def states(place, ends, minutes=8.0, parts=PARTS):
    """(state of every part, names of those that were started) of a run whose parts end like `ends`."""
    started = []

    def start(part, say):
        started.append(part.name)
        return ends[part.name]

    found = run_all(parts, place / "pair", place, minutes, start, lambda _: None)
    return {name: one["state"] for name, one in found.items()}, started


ENDS = {"one": (0, ""), "two": (1, "ValueError: no"), "three": (None, "compiling")}


def test_a_part_that_fails_is_named_and_the_rest_goes_on(place):
    found, started = states(place, ENDS)
    assert found == {"one": "done", "two": "failed", "three": "out of time"}
    assert started == ["one", "two", "three"]
    assert json.loads((place / "parts.json").read_text())["two"]["error"] == "ValueError: no"
    text = (place / "report.txt").read_text()
    assert "ValueError: no" in text
    assert "out of time" in text


def test_what_is_done_is_not_measured_again(place):
    states(place, ENDS)
    found, started = states(place, dict.fromkeys(ENDS, (0, "")))
    assert started == ["two", "three"]
    assert set(found.values()) == {"done"}
    (place / "pair").write_bytes(b"another pair")
    assert states(place, ENDS)[1] == ["one", "two", "three"]


def test_a_part_gets_the_time_that_is_left(place, clock, monkeypatch):
    given = []

    def start(part, say):
        given.append(part.seconds)
        clock.seconds += part.seconds
        return 75, "the budget is used up"

    found = run_all(PARTS, place / "pair", place, 2.5, start, lambda _: None)
    assert given == [100.0, 50.0]
    assert found["one"]["state"] == found["three"]["state"] == "out of time"
    assert found["three"]["error"] == "not begun"


def test_a_command_that_takes_too_long_is_ended():
    lines, began = [], time.perf_counter()
    code = "import time; print('begun', flush=True); time.sleep(60)"
    assert limited([sys.executable, "-S", "-c", code], 0.5, lines.append) == (None, "begun")
    assert time.perf_counter() - began < 20
    assert lines == ["begun"]


def test_the_last_line_of_a_command_says_why():
    assert limited([sys.executable, "-S", "-c", "1 / 0"], 60.0, lambda _: None) == (
        1,
        "ZeroDivisionError: division by zero",
    )


def test_the_device_is_left_to_the_parts(tmp_path):
    """A process that touched a device would fail: JAX knows none of this name."""
    write_pair(tmp_path / "pair", tiny_pair())
    command = [sys.executable, "-m", "atspeed_jax.accelerator.run", f"--pair={tmp_path / 'pair'}", f"--out={tmp_path}"]
    env = os.environ | {"JAX_PLATFORMS": "no_such_device"}
    done = subprocess.run([*command, "--minutes=0"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    assert done.stdout.count("not begun") == 12


def flags(*arguments):
    return plan_of(vars(run.parser().parse_args(["--pair=p", "--out=o", *arguments])))


def test_flags_make_the_plan():
    assert flags() == Plan()
    found = flags("--shapes=3m,1b", "--batches=2", "--generate=False", "--settings=8,8,8")
    assert found == Plan(shapes=("3m", "1b"), batches=(2,), generate=False, settings="8,8,8")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batches=x", "--batches=x: expected a value such as"),
        ("--generate=maybe", "--generate=maybe: expected a value such as True"),
        ("--beams=", "--beams is empty"),
        ("--users=0", "users=0: expected a whole number"),
    ],
)
def test_a_bad_flag_is_named(argument, message):
    with pytest.raises((SuiteError, ValueError), match=message):
        flags(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair=none"], "error: there is no file none"),
        (["--shapes=9b"], "error: --shapes=9b: expected some of pair, 3m"),
        (["--only=nothing"], "error: --only=nothing: no part has it in its name; expected one of decode llama-7b"),
        (["--out=no/where"], "error: --out=no/where/parts.json: there is no directory no/where"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    write_pair(tmp_path / "pair", tiny_pair())
    with pytest.raises(SystemExit, match=message):
        main([f"--pair={tmp_path / 'pair'}", f"--out={tmp_path}", *arguments])
