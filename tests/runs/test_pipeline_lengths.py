"""The whole pipeline with ids of any length, and every objective with each: what a draft learns has no special case."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import small
from atspeed_jax.alignment.losses import Objective
from atspeed_jax.runs.borrow import BORROWED
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.training.metrics_log import read_metrics


def run_of(small_config, workdir: Path, length: int, objective: str) -> Run:
    """The small pipeline with ids of so many codes, and widths that drafts do miss."""
    config = small.changed(small_config, "data.synthetic.levels", length)
    config = small.changed(config, "data.synthetic.codes_per_level", 16 if length == 1 else 4)
    config = small.changed(config, "decode.widths", ("all", *[10] * (length - 2))[: length - 1])
    return Run(small.changed(config, "align.objective", objective), workdir, None)


def check_whole(run: Run, length: int) -> None:
    """A run from nothing to its report, whatever the length: lists of beam search, in at most `length` calls."""
    report = run.all()
    assert run.dataset.catalog.length == length
    for row in report["decoding"]:
        assert row["mismatched_users"] == 0
        calls = row["target_calls_mean"]
        assert calls == length if row["method"] == "beam_search" else 1 <= calls <= length
    losses = [record["loss"] for record in read_metrics(run.workdir / "draft" / "metrics.jsonl") if "loss" in record]
    assert losses
    assert np.isfinite(losses).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:objective='reference_tv'")
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_every_objective_with_ids_of_any_length(small_config, tmp_path, length):
    for objective in get_args(Objective):
        run = run_of(small_config, tmp_path / objective, length, objective)
        run.workdir.mkdir()
        for stage in BORROWED:  # of the first objective: they do not depend on it
            run.borrow(stage, list(tmp_path.iterdir()))
            run.make(stage)
        check_whole(run, length)
