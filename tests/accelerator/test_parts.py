"""The parts of a plan, and a whole run of tiny shapes in a process without the data libraries."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.accelerator.parts import FIRST_TREES, TREES, Plan, first_codes, parts_of
from atspeed_jax.accelerator.steps import StepSuite
from atspeed_jax.benchmarks.decode_cells import Tree
from atspeed_jax.benchmarks.pair import write_pair
from tiny_pair import tiny_pair

ROOT = Path(__file__).resolve().parents[2]


def test_the_most_wanted_parts_come_first():
    parts = parts_of(Plan(), 4)
    assert [part.name for part in parts[:4]] == [
        "decode llama-7b, batch 1",
        "train 1b",
        "align 1b",
        "decode 110m, batch 1",
    ]
    assert len({part.name for part in parts}) == len(parts) == 12
    decoded = [part.suite for part in parts if not isinstance(part.suite, StepSuite)]
    assert {shape for suite in decoded for shape in suite.shapes} == {"110m", "1b", "llama-7b", "qwen3-1.7b"}
    assert {batch for suite in decoded for batch in suite.batches} == {1, 8}
    assert decoded[0].beams == (20, 5, 1)
    assert decoded[0].prompts == (100,)
    assert decoded[1].trees == tuple(map(Tree.parse, TREES.split(";")))
    assert decoded[0].trees == (*decoded[1].trees, Tree.parse(FIRST_TREES))
    assert {suite.dtype for suite in decoded} == {"bfloat16"}
    assert parts[-2].codes == 3
    assert parts[-2].suite.beams == (256,)
    assert parts[-1].suite.methods == ("plain", "hf")


def test_ids_of_another_length_take_the_tree_of_the_run():
    assert parts_of(Plan(), 3)[0].suite.trees == ()
    assert parts_of(Plan(settings="8,8"), 3)[0].suite.trees == (Tree((8, 8)),)


def test_a_plan_leaves_parts_out():
    plain = parts_of(Plan(shapes=("1b",), batches=(1,), wide_beams=0, generate=False), 4)
    assert [part.name for part in plain] == ["decode 1b, batch 1", "train 1b", "align 1b"]


def test_a_part_is_known_by_what_it_measures(tmp_path):
    (tmp_path / "pair").write_bytes(b"x")
    one = parts_of(Plan(), 4)[0]
    other = parts_of(Plan(users=9), 4)[0]
    assert one.identity(tmp_path / "pair") == parts_of(Plan(), 4)[0].identity(tmp_path / "pair")
    assert one.identity(tmp_path / "pair") != other.identity(tmp_path / "pair")
    assert one.identity(tmp_path / "pair") == dataclasses.replace(one, seconds=1.0).identity(tmp_path / "pair")


def test_the_first_codes_of_the_ids():
    pair = tiny_pair()
    cut = first_codes(pair, 2)
    assert {tuple(ids) for ids in cut.id_tokens.tolist()} == {tuple(ids[:2]) for ids in pair.id_tokens.tolist()}
    assert cut.id_counts.sum() == pair.id_counts.sum()
    row = pair.id_tokens[0, :2]
    counted = pair.id_counts[(pair.id_tokens[:, :2] == row).all(1)].sum()
    assert cut.id_counts[np.flatnonzero((cut.id_tokens == row).all(1))].tolist() == [counted]
    assert cut.decode.widths == pair.decode.widths[:1]
    assert first_codes(pair, 3) is pair


def read(out, name):
    return json.loads((out / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What a run of tiny shapes prints and leaves."""
    out = tmp_path_factory.mktemp("accelerator")
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "accelerator_run.py"), str(out)]
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=quickly, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return SimpleNamespace(out=out, printed=run.stdout, steps=read(out, "steps"), decoded=read(out, "decode"))


def test_every_part_is_measured_without_the_data_libraries(done):
    parts = ["decode pair, batch 1", "train pair", "align pair"]
    assert {name: one["state"] for name, one in read(done.out, "parts").items()} == dict.fromkeys(parts, "done")
    found = [(row["K"], row["method"], row["equal"]) for row in done.decoded]
    assert found == [(2, "plain", True), (2, "speculative", True)]
    assert [(row["step"], row["rows"]) for row in done.steps] == [("train", 4), ("align", 4)]


def test_rows_say_where_the_time_goes(done):
    for row in [*done.decoded, *done.steps]:
        assert row["ms"] > 0
        assert row["compile_s"] > 0
        assert row["device_time"]["kernels"] > 1


def test_the_report_is_printed(done):
    text = (done.out / "report.txt").read_text()
    assert text in done.printed
    for title in ("pair, ", "Steps of a target", "Where the device's time goes", "Kernels that take most", "Parts"):
        assert title in text


@pytest.mark.slow
def test_the_script_runs_parts_in_processes_and_goes_on(tmp_path):
    """With one larger shape and three codes of the ids."""
    write_pair(tmp_path / "tiny.pack", tiny_pair())
    sizes = ["--shapes=3m", "--beams=3,2", "--batches=1", "--prompt=9", "--users=3", "--repeats=1"]
    others = ["--step_shape=3m", "--step_rows=4", "--dtype=float32", "--wide_beams=3", "--wide_prompt=9"]
    command = [str(ROOT / "launch" / "gpu.sh"), "tiny.pack", "results", *sizes, *others, "--generate=False"]
    given = os.environ | {"PYTHON": sys.executable, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}

    def started(*extra):
        return subprocess.run([*command, *extra], cwd=tmp_path, env=given, capture_output=True, text=True)

    first = started("--only=train")
    assert first.returncode == 0, first.stdout
    assert "train step of 3m, 4 rows of 10 tokens, float32" in (tmp_path / "results" / "log.txt").read_text()
    again = started("--minutes=20")
    assert again.returncode == 0, again.stdout
    assert "train 3m: measured before" in again.stdout
    assert [row["K"] for row in read(tmp_path / "results", "decode")] == [3, 3, 2, 2, 3]
