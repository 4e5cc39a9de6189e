"""The report of a run names its rows. A whole one is read in test_parts.py."""

from atspeed_jax.accelerator.report import decode_label, report, step_label, step_table

DECODED = {"shape": "1b", "K": 20, "batch": 8, "method": "speculative", "widths": [8, 8], "budget": None}
STEP = {"step": "train", "shape": "1b", "rows": 128, "tokens": 101, "ms": 250.0, "tokens_per_s": 51712.0}
STEP |= {"tflops": 350.0, "mfu": None, "of_ceiling": 0.45, "dtype": "bfloat16", "device": "a chip"}


def test_a_row_is_named_by_what_differs():
    assert decode_label(DECODED) == "1b K=20 batch 8 speculative 8,8"
    assert decode_label(DECODED | {"budget": 12}) == "1b K=20 batch 8 speculative 8,8/12"
    assert decode_label(DECODED | {"method": "plain"}) == "1b K=20 batch 8 plain"
    assert step_label(STEP) == "train step, 1b, 128 rows"


def test_a_share_of_an_unknown_peak_is_left_out():
    text = step_table([STEP, STEP | {"mfu": 0.354}])
    assert "–" in text.splitlines()[-2]
    assert "0.354" in text.splitlines()[-1]
    assert "a chip" in text


def test_parts_without_rows_are_named(tmp_path):
    states = {"align 1b": {"state": "failed", "seconds": 3.4, "error": "ValueError: no", "identity": "x"}}
    text = report(states, tmp_path)
    assert text.split() == ["Parts", "part", "state", "s", "why", "align", "1b", "failed", "3", "ValueError:", "no"]
