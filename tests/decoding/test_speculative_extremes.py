"""The far ends of what may be asked for: ids of 8 codes, 4,096 codes per level, K = 512, batches of 1 and of 256."""

import numpy as np
import pytest

import oracle
from atspeed_jax.items.trie import build_trie
from cases import FIRST_CODE, STEP, Batch, Shape, items_of, make_batch, make_draft, make_prompt, make_table
from table_model import table_logits


def check(batch: Batch, users) -> None:
    """Both decoders against the oracle for some users, and against each other for all; tables are exact."""
    shape = batch.shape
    plain, strict = batch.plain(STEP), batch.speculative(STEP, row_share=4)
    for name in ("ids", "tokens", "score", "valid"):
        np.testing.assert_array_equal(getattr(strict, name), getattr(plain, name), name)
    assert (strict.target_calls <= len(shape.sizes)).all()
    assert strict.target_calls.min() < len(shape.sizes)
    sequences = batch.sequences()
    for row in users:
        expected = oracle.beam_search(batch.ids, sequences[row], table_logits(batch.table), shape.beams, shape.norm)
        assert items_of(strict, row) == [item for item, _ in expected.items]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_ids_of_eight_codes(norm):
    shape = Shape((2,) * 8, 3, (2, 4, 4, 5, 5, 5, 5), 7, norm, batch=4)
    rng = np.random.default_rng(8)
    for draft in ("perfect", "near"):
        check(make_batch(shape, rng, trie="some", table="ladder", draft=draft), range(4))


@pytest.mark.parametrize("users", [1, 256])
def test_batches_of_one_and_of_many(users):
    shape = Shape((5, 4, 3), 4, (5, 8), 2, "vocab", batch=users)
    rng = np.random.default_rng(9)
    check(make_batch(shape, rng, trie="some", table="coarse", draft="near"), [0, users // 2, users - 1])


def test_many_codes_and_many_beams():
    """4,096 codes at the first level, 600 items of two codes: K = 512."""
    shape, rng = Shape((4096, 3), 512, (512,), 1, "vocab", batch=2), np.random.default_rng(10)
    first, second = rng.choice(4096, 400, replace=False), rng.integers(0, 3, 400)
    pairs = np.stack([np.tile(first, 2), np.concatenate([second, (second + 1) % 3])], 1)[: 2 * 400 - 200]
    ids = sorted((FIRST_CODE + int(a), FIRST_CODE + 4096 + int(b)) for a, b in pairs)
    table = make_table(shape.sizes, "coarse", rng)
    draft = make_draft(table, shape.sizes, "near", "coarse", rng)
    batch = Batch(shape, ids, np.ones(600), build_trie(np.array(ids)), table, draft, make_prompt(shape, rng), True)
    assert len(set(ids)) == 600 > shape.beams
    check(batch, range(2))
