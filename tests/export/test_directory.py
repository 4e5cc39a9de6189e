"""What is exported appears whole or not at all, whatever happens meanwhile."""

import jax
import numpy as np
import pytest
from safetensors import SafetensorError

from atspeed_jax.export import hugging_face
from atspeed_jax.export.directory import ExportError, appearing
from atspeed_jax.export.hugging_face import export_hf
from atspeed_jax.models.weights import load_weights
from bases import CATALOG, CONFIG
from numpy_llama import wide_params


def exported(directory, dtype="float32"):
    params = wide_params(CONFIG, seed=0)
    export_hf(directory, CONFIG, params, CATALOG, history=5, dtype=dtype)
    return params


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists and is not empty"):
        exported(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ExportError, match="cannot be written"):
        exported(tmp_path / "notes.txt" / "target")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: os error 28")])
def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
    def full(path, *_, **__):
        (path / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(hugging_face, "save_weights", full)
    with pytest.raises(ExportError, match="target cannot be written"):
        exported(tmp_path / "target")
    assert not list(tmp_path.iterdir())


def test_two_exports_cannot_make_one_directory(tmp_path, monkeypatch):
    refused = []

    def second(path, *_, **__):
        with (
            pytest.raises(ExportError, match="target is being written by another process; wait for it, or give anoth"),
            appearing(tmp_path / "target"),
        ):
            pass
        refused.append(path.is_dir())  # and what the first has written is left alone

    monkeypatch.setattr(hugging_face, "save_weights", second)
    exported(tmp_path / "target")
    assert refused == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_an_export_that_was_cut_off_is_made_again(tmp_path):
    (tmp_path / ".target.partial").mkdir()
    (tmp_path / ".target.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "target").mkdir()
    params = exported(tmp_path / "target", dtype="bfloat16")
    loaded = load_weights(tmp_path / "target", CONFIG)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), loaded, params)
