"""The plot of a sweep."""

from atspeed_jax.sweeps.plot import sweep_plot

ROWS = [
    {"run": "slow", "K": 20, "mode": "strict", "constraint": "trie", "score_norm": "vocab", "widths": ["all", 96]}
    | {"users": 3, "target_calls_mean": 2.0},
    {"run": "fast", "K": 5, "mode": "strict", "constraint": "trie", "score_norm": "vocab", "widths": ["all", 96]}
    | {"users": 3, "target_calls_mean": 1.0},
]


def test_the_plot_is_a_picture():
    assert sweep_plot(ROWS).startswith(b"\x89PNG")
