import pytest

from atspeed_jax.benchmarks import large_catalog
from atspeed_jax.serving import decode_users


@pytest.mark.slow
def test_a_small_one(capsys, monkeypatch):
    """Users whose lists seem to differ are decoded again in float64."""
    monkeypatch.setattr(
        decode_users, "differing", lambda a, b: ~(a.tokens == b.tokens).all((1, 2)) | (a.score[:, 0] < 0)
    )
    numbers = {"items": 300, "codes": 8, "levels": 3, "beams": 9, "users": 2, "tokens": 7}
    large_catalog.main([f"--{name}={value}" for name, value in numbers.items()])
    shown = capsys.readouterr().out
    assert "speculative: s per user" in shown
    assert "users whose lists differ  2" in " ".join(shown.split()).replace("differ 2", "differ  2")
    assert "of these in float64" in shown


def test_lists_of_two_searches_are_compared():
    numbers = {"items": 300, "codes": 8, "levels": 3, "beams": 9, "users": 2, "tokens": 7}
    rows = dict(large_catalog.measure("4M", numbers))
    assert rows["users whose lists differ"] == "0"
    assert int(rows["distinct ids"]) <= 300
    assert "(3.00 target calls)" in rows["beam_search: s per user"]
