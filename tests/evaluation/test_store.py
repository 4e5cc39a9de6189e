import dataclasses

import pytest

from atspeed_jax.evaluation.store import MeasurementStore


def test_a_measurement_is_made_once_per_directory(tmp_path):
    said = []
    first = MeasurementStore(tmp_path / "f1", said.append)
    again, other = dataclasses.replace(first), dataclasses.replace(first, directory=tmp_path / "f2")
    assert first.remembered("row", lambda: {"value": 1}, {"value": int}) == {"value": 1}
    assert again.remembered("row", lambda: pytest.fail("measured twice"), {"value": int}) == {"value": 1}
    assert again.remembered("other", lambda: {"value": 3}, {"value": int}) == {"value": 3}
    assert other.remembered("row", lambda: {"value": 2}, {"value": int}) == {"value": 2}
    assert first.remembered("row", lambda: pytest.fail("measured twice"), {"value": int}) == {"value": 1}
    assert said == ["measuring row", "measuring other", "measuring row"]


def test_a_damaged_measurement_is_named(tmp_path):
    store = MeasurementStore(tmp_path, print)
    (tmp_path / "row.json").write_text('{"value": "one"}')
    with pytest.raises(ValueError, match=r"row.json is damaged .*; delete it, and it is measured again"):
        store.remembered("row", lambda: pytest.fail("measured"), {"value": int})
