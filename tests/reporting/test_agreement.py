"""How a table and a sentence tell what is lost below float32."""

import numpy as np

from atspeed_jax.evaluation import precision
from atspeed_jax.reporting import agreement
from atspeed_jax.serving.lists import Agreement

HOW = {"arithmetic": "bfloat16, logits in float32", "batch_size": 4, "samples": 200, "seed": 0}


def agreement_of(same: float, shared: float, gap: float, users: int = 100) -> Agreement:
    """So large a share of the users has the same list; all share items and gaps alike."""
    every = np.ones(users)
    return Agreement((np.arange(users) < same * users).astype(float), shared * every, gap * every, 2 * gap * every)


def rows(*owns) -> list[dict]:
    measured = [precision.compare(agreement_of(*own), agreement_of(0.70, 0.99, 0.01), **HOW) for own in owns]
    return [{"K": 20, "drafter": "draft", "agreement": one} for one in measured] + [{"K": 20, "drafter": "none"}]


def test_cells_show_plain_beam_search_beside():
    (own, alone) = rows((0.5, 1.0, 0.0))
    assert agreement.columns([own, alone]) == [
        "same list (itself)",
        "items shared (itself)",
        "score gap (itself)",
        "largest (itself)",
    ]
    assert agreement.cells(own, "-") == ["0.500 (0.700)", "1.0000 (0.9900)", "0.00000 (0.01000)", "0.0000 (0.0200)"]
    assert agreement.cells(alone, "-") == ["-"] * 4
    assert agreement.columns([alone]) == []


def test_the_report_says_whether_more_is_lost():
    begin = "Computing in bfloat16, logits in float32, speculation loses"
    end = "than plain beam search does against itself in batches of 4."
    fine = rows((0.7, 0.99, 0.01), (0.9, 1.0, 0.0))
    assert agreement.in_words(fine) == [f"{begin} no more against plain beam search {end}"]
    worse = rows((0.7, 0.99, 0.01), (0.5, 0.9, 0.01))
    lost = "(K = 20, draft: same list, items shared)"
    assert agreement.in_words(worse) == [f"{begin} more against plain beam search {lost} {end}"]
    assert agreement.in_words([{"K": 20, "drafter": "none"}]) == []
