import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.base import DecodeError, Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import build_trie
from cases import MORE_SHAPES, SHAPES, STEP, TRIES, Shape, batches, make_batch, make_ids, sampled
from compilation import compiled_as_for_users
from properties import ROUNDING, check_batch
from table_model import COUNTED, table_logits

BATCHES = 24  # of 8 users, per shape
EVERYTHING = next(shape for shape in SHAPES if shape.widths == (5, 15, 45))
NARROW = SHAPES[0]
SMALL = next(shape for shape in SHAPES if len(shape.sizes) == 2)
SAME = ("ids", "tokens", "score", "valid", "target_calls")


def check(shape, count, seed):
    before = beam_search._cache_size(), speculative_beam_search._cache_size()
    counts = collections.Counter()
    for batch in batches(shape, count, seed):
        counts += check_batch(batch)
    assert beam_search._cache_size() - before[0] <= 1
    assert speculative_beam_search._cache_size() - before[1] <= 1
    assert counts["near ties"] <= 0.02 * counts["users"]
    assert counts["walks"] >= (0.9 if shape.drafter == "model" else 0.5) * counts["users"]
    return counts


@pytest.mark.parametrize("shape", sampled(SHAPES), ids=str)
def test_equals_plain_and_oracle(shape):
    """Items, order and scores of both decoders, calls and round 1: random catalogs, tables, drafts and prompts."""
    check(shape, BATCHES, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES + MORE_SHAPES, ids=str)
def test_equals_plain_and_oracle_at_length(shape):
    """More of them, compiled as for users."""
    with compiled_as_for_users():
        check(shape, 8 * BATCHES, seed=2)


def test_there_are_enough_cases_and_they_are_hard():
    """2,000 users, at most 30 compiled shapes; in many of them ties decide, places are missing, drafts fail."""
    assert 2 * len(SHAPES) <= 30  # each is compiled by both decoders
    seen = collections.Counter()
    for shape in SHAPES:
        for batch in batches(shape, BATCHES, seed=1):
            for prompt in batch.sequences():
                logits = table_logits(batch.table)
                found = oracle.beam_search(batch.ids, prompt, logits, shape.beams + 1, shape.norm)
                last = found.items[shape.beams - 1 : shape.beams + 1]
                seen["users"] += 1
                seen["order hangs on a tie"] += len({score for _, score in found.items}) < len(found.items)
                seen["a tie decides who stays"] += len(last) == 2 and last[0][1] == last[1][1]
                seen["fewer than K"] += len(batch.ids) < shape.beams
                seen["BOS alone"] += len(prompt) == 1
                walk = oracle.strict_walk(
                    batch.ids, prompt, logits, batch.propose(), shape.beams, shape.widths, shape.gamma, shape.norm
                )
                seen["one call"] += walk.calls == 1
                seen["more than two calls"] += walk.calls > 2
                seen["a miss at level 1"] += bool(walk.round_one) and not walk.round_one[0][1]
    assert seen["users"] >= 2000
    assert all(seen[kind] >= 100 for kind in seen), seen
    assert seen["order hangs on a tie"] >= 600, seen


def test_perfect_draft_with_all_widths_needs_one_call():
    rng = np.random.default_rng(3)
    for trie in TRIES:
        batch = make_batch(EVERYTHING, rng, trie=trie, table="ladder", draft="perfect")
        result = batch.speculative()
        assert (result.target_calls == 1).all()
        assert result.rounds == 1
        assert result.round_one.accepted.all()
        assert (result.round_one.coverage == 1).all()


def test_levels_with_all_prefixes_never_miss():
    """With every prefix drafted, the draft's opinion cannot matter."""
    rng = np.random.default_rng(4)
    batch = make_batch(EVERYTHING, rng, trie="full", table="ladder", draft="adversarial")
    assert (batch.speculative().target_calls == 1).all()


def test_reported_calls_are_executed_calls():
    """Also the prompt's, and also where rows of one batch need different numbers."""
    different = False
    for batch in batches(NARROW, 12, seed=5):
        COUNTED.calls.forget()
        result = batch.speculative()
        total, written = COUNTED.calls.take()
        assert result.target_calls.tolist() == written
        assert result.rounds == total
        different |= len(set(written)) > 1
    assert different


@pytest.mark.parametrize(("beams", "gamma"), [(4, 3), (12, 1)])
def test_finished_prefixes_need_no_call(beams, gamma):
    """Ids that part at the first code: under trie norm the prompt's call is all, for both decoders, also where places
    are missing and the draft does not reach the last level."""
    shape = Shape((5, 3, 3, 3), beams, (5, 15, 45), gamma, "trie")
    batch = make_batch(shape, np.random.default_rng(11), trie="chains", table="ladder", draft="adversarial")
    for decode in (batch.plain, batch.speculative):
        COUNTED.calls.forget()
        result = decode()
        assert result.target_calls.tolist() == [1] * shape.batch
        assert result.valid.sum(1).tolist() == [min(beams, 5)] * shape.batch
        assert COUNTED.calls.take() == (1, [1] * shape.batch)


def test_order_of_the_batch_is_the_order_of_the_output():
    for batch in batches(NARROW, 6, seed=6):
        order = np.random.default_rng(7).permutation(NARROW.batch)
        moved = batch.speculative(prompt=jax.tree.map(lambda x, order=order: x[order], batch.prompt))
        for name in SAME:
            np.testing.assert_array_equal(getattr(moved, name), getattr(batch.speculative(), name)[order], name)


def test_a_row_alone_and_a_wider_prompt_give_the_same():
    batch = next(b for b in batches(SMALL, 24, seed=5) if len(set(b.speculative().target_calls.tolist())) > 1)
    together = batch.speculative()
    for row in range(SMALL.batch):
        alone = batch.speculative(prompt=jax.tree.map(lambda x, row=row: x[row : row + 1], batch.prompt))
        for name in SAME:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[row], name)
    padded = Prompt(
        jnp.pad(batch.prompt.tokens, ((0, 0), (3, 0)), constant_values=7), jnp.pad(batch.prompt.valid, ((0, 0), (3, 0)))
    )
    wider = batch.speculative(prompt=padded)
    for name in SAME:
        np.testing.assert_array_equal(getattr(wider, name), getattr(together, name), name)


def compiled(shape, step):
    batch = make_batch(shape, np.random.default_rng(8), trie="some", table=shape.tables[0], draft="near")
    config = SearchConfig(shape.widths, shape.gamma, shape.norm, beams=shape.beams)
    return speculative_beam_search.lower(
        step, batch.table, ModelDrafter(STEP), batch.draft, trie=batch.trie, prompt=batch.prompt, config=config
    )


def test_no_host_callback():
    small = Shape((4, 3), 3, (4,), 1, "vocab")
    assert "callback" in compiled(small, COUNTED).as_text()  # so this would be seen
    text = compiled(small, STEP).as_text()
    assert "scan" in text or "while" in text
    assert "callback" not in text
    assert "infeed" not in text
    assert "outfeed" not in text


def test_another_catalog_and_other_parameters_do_not_recompile():
    """The default capacities are powers of two: catalogs of like size share them."""
    shape = Shape((4, 4), 3, (4,), 1, "vocab")
    rng = np.random.default_rng(9)
    before = speculative_beam_search._cache_size()
    for kind in ("full", "some", "some"):
        batch = make_batch(shape, rng, trie=kind, table="coarse", draft="random")
        ids = np.array(make_ids((4, 4), "full", 3, rng))
        ids = np.delete(ids, rng.choice(len(ids), 3, replace=False), axis=0)
        trie = build_trie(ids)
        config = SearchConfig((4,), 1, "vocab", beams=3)
        result = speculative_beam_search(
            STEP, batch.table, ModelDrafter(STEP), batch.draft, trie=trie, prompt=batch.prompt, config=config
        )
        assert set(result.ids[result.valid].tolist()) <= set(range(len(ids)))
    assert speculative_beam_search._cache_size() - before == 1


@pytest.mark.parametrize("widths", [(), (4,), (4, 4, 4, 4)])
def test_wrong_number_of_widths(widths):
    batch = make_batch(NARROW, np.random.default_rng(10), trie="full", table="coarse", draft="random")
    config = SearchConfig(widths, 3, "vocab", beams=4)
    with pytest.raises(DecodeError, match="ids of length 4 need 3 widths"):
        speculative_beam_search(
            STEP, batch.table, ModelDrafter(STEP), batch.draft, trie=batch.trie, prompt=batch.prompt, config=config
        )


def test_rounding_is_far_below_the_margin():
    assert 100 * np.finfo(np.float32).eps <= ROUNDING
