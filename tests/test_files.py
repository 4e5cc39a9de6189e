import json
import os

import pytest

from atspeed_jax import files


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5, None]}

    def no_space(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        files.write_json(path, {"a": "another"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5, None]}


def test_non_finite_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
