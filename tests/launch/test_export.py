"""launch.export as a user meets it."""

import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weights import load_weights
from mains import SMALL, run_mains


@pytest.mark.slow
def test_both_models_and_a_directory_in_use(small_run, tmp_path):
    outputs = {"target": tmp_path / "target", "draft": tmp_path / "draft", "again": tmp_path / "target"}
    cases = [
        ("export", small_run.workdir, SMALL, [f"--output={output}", f"--model={name.replace('again', 'draft')}"], "")
        for name, output in outputs.items()
    ]
    target, draft, again = run_mains(cases)
    assert (target.code, draft.code, again.code) == (0, 0, 1), target.err + draft.err
    assert "exists and is not empty" in again.err.splitlines()[-1]
    for name in ("target", "draft"):
        params = getattr(small_run.run, f"{name}_params")
        loaded = load_weights(outputs[name], read_hf_config(outputs[name]))
        jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_platform_that_does_not_exist_is_refused_before_the_run_is_opened(tmp_path):
    more = [f"--output={tmp_path / 'out'}", "--format=decoder", "--platforms=cpu,rocket"]
    (done,) = run_mains([("export", tmp_path / "nowhere", SMALL, more, "")])
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith(
        "error: platforms=cpu,rocket: 'rocket' is none; expected one or more of"
    )
    assert not list(tmp_path.iterdir())


def test_the_decoder_the_figures_and_the_lists(small_run, tmp_path):
    flags = ["--drafter=none", "--k=3", "--platforms=cpu"]
    outputs = {name: tmp_path / name for name in ("decoder", "figures", "lists")}
    cases = [
        ("export", small_run.workdir, None, [f"--format={name}", f"--output={output}", *flags], "")
        for name, output in outputs.items()
    ]
    results = run_mains(cases)
    assert [result.code for result in results] == [0, 0, 0], "".join(result.err for result in results)
    about = json.loads((outputs["decoder"] / "decoder.json").read_text())
    assert about["K"] == 3
    assert about["arguments"]["tokens"]["shape"] == [1, 13]
    assert about["platforms"] == ["cpu"]
    assert {path.name for path in outputs["figures"].iterdir()} == {"decoding.parquet", "quality.parquet"}
    lists = pq.read_table(outputs["lists"] / "lists.parquet").to_pylist()
    assert lists
    assert {len(row["items"]) for row in lists} == {3}
