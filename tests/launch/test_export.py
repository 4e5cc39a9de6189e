"""launch.export as a user meets it."""

import json

import jax
import numpy as np

from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weights import load_weights
from mains import QUICK, SMALL, run_mains


def test_both_models_and_a_directory_in_use(small_run, tmp_path):
    outputs = {"target": tmp_path / "target", "draft": tmp_path / "draft", "again": tmp_path / "target"}
    cases = [
        ("export", small_run.workdir, SMALL, [f"--output={output}", f"--model={name.replace('again', 'draft')}"], "")
        for name, output in outputs.items()
    ]
    target, draft, again = run_mains(cases, {})
    assert (target.code, draft.code, again.code) == (0, 0, 1), target.err + draft.err
    assert "exists and is not empty" in again.err.splitlines()[-1]
    for name in ("target", "draft"):
        params = getattr(small_run.run, f"{name}_params")
        loaded = load_weights(outputs[name], read_hf_config(outputs[name]))
        jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_the_decoder_and_the_figures(small_run, tmp_path):
    flags = ["--drafter=none", "--k=3", "--platforms=cpu"]
    outputs = {name: tmp_path / name for name in ("decoder", "figures")}
    cases = [
        ("export", small_run.workdir, SMALL, [f"--format={name}", f"--output={output}", *flags], "")
        for name, output in outputs.items()
    ]
    decoder, figures = run_mains(cases, QUICK)
    assert (decoder.code, figures.code) == (0, 0), decoder.err + figures.err
    about = json.loads((outputs["decoder"] / "decoder.json").read_text())
    assert about["K"] == 3 and about["tokens"] == [1, 13] and about["platforms"] == ["cpu"]
    assert {path.name for path in outputs["figures"].iterdir()} == {"decoding.parquet", "quality.parquet"}
