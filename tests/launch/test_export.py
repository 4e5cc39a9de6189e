"""launch.export as a user meets it."""

import jax
import numpy as np

from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weights import load_weights
from mains import SMALL, run_mains


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
