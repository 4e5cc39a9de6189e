"""Suite `decode` on a tiny pair: rows, a second start, a budget, and what is refused."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.benchmarks import decode, decode_equality, decode_measure
from atspeed_jax.benchmarks.decode import line_of, main, measure_decode, suite_of, table
from atspeed_jax.benchmarks.decode_bench import Clock
from atspeed_jax.benchmarks.decode_cells import SuiteError, Tree
from atspeed_jax.benchmarks.decode_floor import Ceilings
from atspeed_jax.benchmarks.pair import write_pair
from atspeed_jax.items.catalog import BOS
from atspeed_jax.models.wide_shapes import SHAPES
from atspeed_jax.serving.settings import DecodeConfig, Setting
from tiny_pair import LARGER, suite_with, tiny_pair

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    *("shape", "K", "batch", "prompt", "mode", "method", "ms", "ms_p95", "ratio_to_plain", "ratio_low", "ratio_high"),
    *("target_calls_mean", "equal", "floor_ratio", "compile_s", "device", "dtype", "settings", "note", "parameters"),
}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(decode, "measure_ceilings", lambda _: Ceilings(1e9, 1e9))
    monkeypatch.setitem(SHAPES, "larger", LARGER)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(rows, lines said, path) of one run of the suite."""
    path, lines = tmp_path_factory.mktemp("decode") / "rows.json", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "measure_ceilings", lambda _: Ceilings(1e9, 1e9))
        patch.setitem(SHAPES, "larger", LARGER)
        suite = suite_with()
        rows = measure_decode(tiny_pair(), suite, path, lines.append)
    return SimpleNamespace(rows=rows, lines=lines, path=path)


@pytest.mark.slow
def test_a_shared_head_stands_beside_whole_prompts(tmp_path):
    """All prompts of the pair begin with BOS and go on."""
    pair = dataclasses.replace(tiny_pair(), head=np.array([BOS], np.int32))
    suite = suite_with(shapes=("pair",), methods=("plain", "speculative", "whole_prompt"))
    rows = measure_decode(pair, suite, tmp_path / "rows.json", print)
    assert [row["method"] for row in rows] == ["plain", "speculative", "whole_prompt", "whole_prompt"]
    for row in rows:
        assert row["equal"] is True
        assert row["ratio_to_plain"] > 0
    assert len({row["settings"] for row in rows}) == 2


def test_rows_hold_every_method_of_every_cell(measured):
    ways = [("strict", "plain"), ("strict", "speculative"), ("strict", "popularity")]
    found = [(row["shape"], row["mode"], row["method"]) for row in measured.rows]
    assert found == [(shape, *way) for shape in ("pair", "larger") for way in ways]
    for row in measured.rows:
        assert row.keys() >= FIELDS
        assert row["note"] == "cost of N parameters, acceptance of the trained pair"
        assert row["equal"] is True
        assert row["ratio_low"] <= row["ratio_to_plain"] <= row["ratio_high"]
        assert row["ms"] <= row["ms_p95"]
        assert (row["target_calls_mean"] == 3) == (row["method"] == "plain")
    assert [row["ratio_to_plain"] for row in measured.rows if row["method"] == "plain"] == [1.0] * 2


@pytest.mark.slow
def test_modes_that_draw_stand_beside_plain_drawing(tmp_path):
    suite = suite_with(shapes=("pair",), methods=("plain",), modes=("relaxed", "coupled"))
    rows = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)[1:]
    found = [(row["mode"], row["method"], row["equal"]) for row in rows]
    assert found == [("relaxed", "plain", True), ("relaxed", "speculative", None), ("coupled", "speculative", True)]
    assert all(row["ratio_to_plain"] for row in rows)


def test_a_larger_target_has_the_calls_of_the_pair_and_more_parameters(measured):
    pair, larger = measured.rows[:3], measured.rows[3:]
    assert [row["target_calls_mean"] for row in pair] == [row["target_calls_mean"] for row in larger]
    assert larger[0]["parameters"] > 3 * pair[0]["parameters"]


def test_it_says_what_it_measures_and_how_long_it_takes(measured):
    text = "\n".join(measured.lines)
    assert "GFLOP/s" in text
    assert "2 cells, about " in text
    assert json.loads(measured.path.read_text()) == measured.rows
    assert "cost of N parameters, acceptance of the trained pair" in table(measured.rows)


def test_a_second_start_measures_nothing_again(measured, monkeypatch):
    monkeypatch.setattr(decode, "measure_cell", None)
    lines = []
    assert measure_decode(tiny_pair(), suite_with(), measured.path, lines.append) == measured.rows
    assert [line for line in lines if "measured before" in line] == [
        "pair, K=2, batch 1, prompt 9: measured before",
        "larger, K=2, batch 1, prompt 9: measured before",
    ]


def test_lists_that_differ_get_no_speed_up(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(decode_equality, "count_differences", lambda *_: (1, 1))
    suite = suite_with(shapes=("pair",), methods=("plain", "speculative"))
    rows = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)
    assert [row["equal"] for row in rows] == [True, False]
    assert rows[1]["ratio_to_plain"] is None
    assert "no ratio: 1 of 3 lists differ" in line_of(rows[1])
    assert "refused" in table(rows)


def test_a_budget_that_ends_leaves_what_is_measured(monkeypatch, tmp_path):
    """The second method finds no time; the same command measures the cell again."""
    checks = iter([None, None, None])

    def check(self, needed=0.0):
        if next(checks, "late") == "late":
            raise decode_measure.OutOfTime

    monkeypatch.setattr(Clock, "check", check)
    lines, path = [], tmp_path / "rows.json"
    rows = measure_decode(tiny_pair(), suite_with(seconds=100.0), path, lines.append)
    assert [(row["method"], row["finished"]) for row in rows] == [("plain", False)]
    assert any("out of time, left out: speculative strict" in line for line in lines)
    assert "the budget of 100.0 s is used up" in lines[-1]
    assert json.loads(path.read_text()) == rows
    monkeypatch.undo()
    monkeypatch.setattr(decode, "measure_ceilings", lambda _: Ceilings(1e9, 1e9))
    suite = suite_with(shapes=("pair",), methods=("plain",))
    assert all(row["finished"] for row in measure_decode(tiny_pair(), suite, tmp_path / "other.json", lines.append))


def test_the_tuner_chooses_for_users_that_are_not_measured(monkeypatch, tmp_path):
    asked = []

    def choose(decoders, batches, beams, score_norm, config, cheaper, say):
        asked.extend(batch["user"][0] for batch in batches)
        assert config.users == 3
        assert cheaper.target.layers <= decoders.target.layers
        setting = Setting.strict("draft", beams, DecodeConfig((4, 4), 2, score_norm))
        return SimpleNamespace(setting=setting, row={"reason": "it is fast"})

    monkeypatch.setattr(decode_measure, "choose", choose)
    lines, suite = [], suite_with(shapes=("pair",), methods=("plain", "speculative"), tune=True)
    rows = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lines.append)
    assert rows[1]["widths"] == [4, 4]
    assert asked == list(range(111, 102, -1)), "the first three are measured, users 100 to 102"
    assert any("tuned to speculative_draft_K2_w4-4_g2_vocab; it is fast" in line for line in lines)
    monkeypatch.setattr(decode_measure, "choose", None)  # what is measured is not tuned again
    assert measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lines.append) == rows


def test_parts_are_model_calls_and_the_rest(measured, tmp_path):
    assert all(row["target_part_ms"] is None for row in measured.rows)
    suite = suite_with(shapes=("pair",), methods=("plain",), parts=True)
    row = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)[0]
    assert row["target_part_ms"] > 0
    assert row["draft_part_ms"] == 0


def flags(**given):
    return suite_of(vars(decode.parser().parse_args(["--pair=p", "--json=j"])) | given)


def test_generate_that_cannot_be_asked_is_refused_first(monkeypatch, tmp_path):
    suite, pair = suite_with(methods=("plain", "hf")), tiny_pair()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SuiteError, match=r"--methods=hf needs torch and transformers: pip install -r tests/hugging"):
        measure_decode(pair, suite, tmp_path / "rows.json", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    trie = dataclasses.replace(pair, decode=dataclasses.replace(pair.decode, score_norm="trie"))
    with pytest.raises(SuiteError, match=r"--methods=hf: the pair decodes with score_norm='trie'"):
        measure_decode(trie, suite, tmp_path / "rows.json", lambda _: None)


def test_flags_make_the_suite():
    suite = flags(
        shapes="110m,1b", beams="1,5", settings="1:8,8,8;9,9,9/20", dtype="bfloat16", stacked=True, seconds=60.0
    )
    assert suite.shapes == ("110m", "1b")
    assert suite.beams == (1, 5)
    assert suite.trees == (Tree((8, 8, 8), None, 1), Tree((9, 9, 9), 20))
    assert (suite.dtype, suite.unrolled, suite.seconds, suite.tune) == ("bfloat16", False, 60.0, False)
    assert flags().tune


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes=9m"], "error: --shapes=9m: expected some of pair, 3m"),
        (["--beams=x"], "error: --beams=x: expected whole numbers"),
        (["--settings=a"], "error: --settings=a: expected widths"),
        (["--settings=8,8/1"], "error: --settings=8,8/1: a budget of 1 nodes cannot hold K=2"),
        (["--settings=8,8,8,8"], "error: --settings=8,8,8,8: 4 widths, expected"),
        (["--pair=none", "--beams=x"], "error: --beams=x: expected whole numbers"),
        (["--prompts=2"], "error: nothing to measure: .*prompt=2, batch=1: 0 of the pair's 12 prompts"),
        (["--json=no/x.json"], "error: --json=no/x.json: there is no directory no"),
        (["--pair=none"], "error: there is no file none"),
        (["--shapes=llama-7b", "--batches=60000"], "error: nothing to measure: .*batch=60000"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    write_pair(tmp_path / "pair", tiny_pair())
    with pytest.raises(SystemExit, match=message):
        main([f"--pair={tmp_path / 'pair'}", f"--json={tmp_path / 'rows.json'}", "--beams=2", *arguments])


def test_rows_of_another_suite_are_not_overwritten(tmp_path):
    for text in ("[{}]", "{}", "x"):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(
            SuiteError, match=r"rows\.json is damaged or of another suite .*; delete it or name another"
        ):
            measure_decode(tiny_pair(), suite_with(), tmp_path / "rows.json", lambda _: None)


def test_it_runs_without_the_data_libraries():
    """A machine with an accelerator may lack them. Only this module's imports are tried, not a run."""
    blocked = ("ml_collections", "tensorflow_datasets", "grain", "array_record", "tensorflow", "torch")
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
    code += "from atspeed_jax.benchmarks.decode import main\nmain(['--pair=none', '--json=x.json'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "error: there is no file none" in done.stderr
