"""Coupled mode: the very draw of the target's own sampler, whatever the draft."""

import numpy as np
import pytest

from atspeed_jax.decoding.noise import user_keys
from cases import STEP, Shape, batches, items_of, make_batch
from laws import smooth
from table_model import COUNTED

SHAPES = (
    Shape((5, 3, 3, 3), 4, (4, 6, 8), 3, "vocab"),
    Shape((4, 3, 3), 3, (4, 5), 1, "trie"),
    Shape((5, 4), 3, (3,), 3, "vocab", "popularity"),
    Shape((4, 3, 3), 3, (5, 8), 2, "vocab", budget=8),
)


@pytest.mark.parametrize("shape", [SHAPES[0], pytest.param(SHAPES[1], marks=pytest.mark.slow), *SHAPES[2:]], ids=str)
def test_equals_the_targets_own_draw(shape):
    """Whose law tests/decoding/test_relaxed.py holds."""
    compared = more_than_one = 0
    for number, batch in enumerate(batches(shape, 12, seed=21)):
        prompt = batch.prompt.replace(keys=user_keys(number, np.arange(shape.batch)))
        COUNTED.calls.forget()
        found = batch.speculative(prompt=prompt, mode="coupled")
        total, written = COUNTED.calls.take()
        assert found.target_calls.tolist() == written
        assert found.rounds == total
        alone, same = (batch.plain(STEP, prompt, mode=mode) for mode in ("relaxed", "coupled"))
        for row in range(shape.batch):
            items = items_of(alone, row)
            assert items_of(found, row) == items_of(same, row) == items
            np.testing.assert_allclose(found.score[row, : len(items)], alone.score[row, : len(items)], atol=1e-4)
            compared += 1
            more_than_one += found.target_calls[row] > 1
    assert compared >= 60
    assert more_than_one >= 10


@pytest.mark.parametrize(("norm", "temperature"), [("vocab", 2.5), pytest.param("trie", 1.0, marks=pytest.mark.slow)])
def test_a_draft_that_is_the_target_never_misses(norm, temperature):
    """With no more room than beams: both draw with one noise, at one temperature."""
    shape = Shape((5, 3, 3, 3), 4, (4, 4, 4), 3, norm)
    rng = np.random.default_rng(3)
    for number in range(12):
        batch = smooth(make_batch(shape, rng, trie="some", table="smooth", draft="perfect"))
        prompt = batch.prompt.replace(keys=user_keys(number, np.arange(shape.batch)))
        found = batch.speculative(STEP, prompt, mode="coupled", temperature=temperature)
        assert found.target_calls.tolist() == [1] * shape.batch
