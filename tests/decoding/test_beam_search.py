"""Plain beam search against the oracle; test_speculative.py compares both decoders over many more catalogs."""

import functools

import jax
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.beam_search import beam_search, search_levels
from cases import SHAPES, STEP, TRIES, items_of, make_batch
from properties import check_calls, check_user
from table_model import COUNTED, table_logits

# Shapes that test_speculative.py compiles too: the compilation is shared.
VOCAB = next(shape for shape in SHAPES if shape.norm == "vocab" and len(shape.sizes) == 4)
EVERYTHING = next(shape for shape in SHAPES if shape.beams == 40)


def random_batches(shape, seed):
    rng = np.random.default_rng(seed)
    return [make_batch(shape, rng, trie=trie, table=table, draft="random") for trie in TRIES for table in shape.tables]


def test_equals_oracle():
    compared = 0
    for batch in random_batches(VOCAB, 1):
        result = batch.plain()
        for row, prompt in enumerate(batch.sequences()):
            expected = oracle.beam_search(batch.ids, prompt, table_logits(batch.table), VOCAB.beams, VOCAB.norm)
            if batch.exact or expected.margin > 1e-4:
                check_user(batch, result, row, expected.items)
                compared += 1
    assert compared >= 140


def test_global_top_k_where_nothing_is_pruned():
    """K covers every level, and the catalog may be smaller than K: every item comes, best first."""
    for batch in random_batches(EVERYTHING, 2):
        result = batch.plain()
        for row, prompt in enumerate(batch.sequences()):
            everything = oracle.every_item(batch.ids, prompt, table_logits(batch.table), EVERYTHING.norm)
            assert result.valid[row].sum() == len(batch.ids)
            np.testing.assert_allclose(
                result.score[row, : len(batch.ids)], [score for _, score in everything], atol=1e-4
            )
            assert sorted(items_of(result, row)) == batch.ids
            if batch.exact:
                assert items_of(result, row) == [item for item, _ in everything]
            # normalised over the children, the items' probabilities sum to 1
            assert np.exp(np.float64(result.score[row]))[result.valid[row]].sum() == pytest.approx(1, abs=1e-5)


def test_one_call_per_level():
    for batch in random_batches(VOCAB, 3)[:4]:
        COUNTED.calls.forget()
        result = batch.plain()
        assert (result.target_calls == 4).all()
        assert result.rounds == 4
        assert result.round_one is None
        check_calls(result, COUNTED.calls.take(), 4)


def test_order_of_the_batch_is_the_order_of_the_output():
    for batch in random_batches(VOCAB, 4)[:6]:
        order = np.random.default_rng(5).permutation(VOCAB.batch)
        moved, result = batch.plain(prompt=jax.tree.map(lambda x, order=order: x[order], batch.prompt)), batch.plain()
        for name in ("ids", "tokens", "score", "valid"):
            np.testing.assert_array_equal(getattr(moved, name), getattr(result, name)[order], name)


def test_levels_hold_the_best_prefixes_in_trie_order():
    """What makes teacher data: the K settled beams of every level."""
    shape = next(s for s in SHAPES if len(s.sizes) == 2)
    levels_of = jax.jit(functools.partial(search_levels, STEP, beams=shape.beams, score_norm=shape.norm))
    for batch in random_batches(shape, 6)[:12]:
        levels, *_ = levels_of(batch.table, batch.trie, batch.prompt)
        assert len(levels) == len(shape.sizes)
        for row, prompt in enumerate(batch.sequences()):
            expected = oracle.beam_search(batch.ids, prompt, table_logits(batch.table), shape.beams, shape.norm)
            if not batch.exact and expected.margin < 1e-4:
                continue
            for level, (beams, want) in enumerate(zip(levels, expected.levels, strict=True), start=1):
                want = sorted(want)
                assert beams.valid[row].tolist() == [True] * len(want) + [False] * (shape.beams - len(want))
                assert [tuple(t[:level].tolist()) for t in beams.tokens[row, : len(want)]] == [
                    prefix for prefix, _ in want
                ]
                np.testing.assert_allclose(beams.score[row, : len(want)], [score for _, score in want], atol=1e-4)


def test_no_host_callback():
    batch = random_batches(next(s for s in SHAPES if len(s.sizes) == 2), 7)[0]
    for step, seen in ((COUNTED, True), (STEP, False)):
        lowered = beam_search.lower(step, batch.table, batch.trie, batch.prompt, beams=3, score_norm="vocab")
        assert ("callback" in lowered.as_text()) is seen
