"""Predicted target calls beside those of the decoder, on random catalogs, tables, drafts and prompts."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter
from atspeed_jax.tuning.acceptance import Acceptance
from cases import SHAPES, STEP, Shape, batches, make_batch, sampled


def acceptance_of(batch, prompts=None):
    """Acceptance up to all prefixes, as it would be for any widths."""
    shape = batch.shape
    drafter = ModelDrafter(STEP) if shape.drafter == "model" else PopularityDrafter()
    widest = SearchConfig(shape.capacity.nodes[:-1], 1, shape.norm, beams=shape.beams)
    return Acceptance((STEP, batch.table), (drafter, batch.draft), batch.trie, prompts or [batch.prompt], widest)


@pytest.mark.parametrize("shape", sampled(SHAPES), ids=str)
def test_calls_are_those_of_the_decoder(shape):
    """Per user, in both norms, with ties, missing places, budgets and drafts that fail."""
    search = SearchConfig(shape.widths, shape.gamma, shape.norm, beams=shape.beams, budget=shape.budget)
    seen = set()
    for batch in batches(shape, 6, seed=31):
        expected = batch.speculative(STEP).target_calls.tolist()
        assert acceptance_of(batch).calls(search).tolist() == expected
        seen |= set(expected)
    assert len(seen) > 1 or len(shape.sizes) == 1 or shape.widths == shape.capacity.nodes[:-1]


@pytest.mark.parametrize("norm", ["vocab", pytest.param("trie", marks=pytest.mark.slow)])
def test_one_look_answers_for_any_widths_gamma_and_budget(norm):
    shape = Shape((5, 3, 3, 3), 4, (5, 15, 45), 3, norm)
    every = list(batches(shape, 8, seed=5))
    looks = [acceptance_of(batch) for batch in every]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(6):
        widths = tuple(int(rng.integers(4, most + 1)) for most in (5, 10, 12))
        budget = None if rng.random() < 0.4 else int(rng.integers(4, sum(widths)))
        search = SearchConfig(widths, int(rng.integers(1, 4)), norm, beams=4, budget=budget)
        for batch, look in zip(every, looks, strict=True):
            own = dataclasses.replace(shape, widths=search.widths, gamma=search.gamma, budget=budget)
            expected = dataclasses.replace(batch, shape=own).speculative(STEP).target_calls.tolist()
            assert look.calls(search).tolist() == expected
            seen |= set(expected)
    assert seen == {1, 2, 3, 4}


@pytest.mark.slow
def test_several_batches_and_budgets_at_once():
    batch = make_batch(SHAPES[0], np.random.default_rng(3), trie="full", table="smooth", draft="near")
    halves = [jax.tree.map(lambda x, part=part: x[part], batch.prompt) for part in (slice(0, 3), slice(3, 8))]
    whole, parts = acceptance_of(batch), acceptance_of(batch, halves)
    search = SearchConfig((4, 6, 8), 3, "vocab", beams=4)
    budgets = [None, 5, 9, 18]
    found = parts.calls_by_budget(search, budgets)
    assert found.tolist() == whole.calls_by_budget(search, budgets).tolist()
    for budget, calls in zip(budgets, found, strict=True):
        assert calls.tolist() == whole.calls(dataclasses.replace(search, budget=budget)).tolist()
    assert (found[1] > found[0]).any()
    assert (found[3] == found[0]).all()  # all that is drafted


def test_a_case_is_drafted_once(monkeypatch):
    """Thousands of settings share a few readings of the draft."""
    batch = next(iter(batches(SHAPES[0], 1, seed=3)))
    look = acceptance_of(batch)
    reads = []
    children = ModelDrafter.children
    monkeypatch.setattr(
        ModelDrafter, "children", lambda *a, level, **k: reads.append(level) or children(*a, level=level, **k)
    )
    for widths in itertools.product((4, 5), range(4, 16), range(4, 46)):
        look.calls(SearchConfig(widths, 3, "vocab", beams=4))
    assert len(reads) <= 2  # traced: levels 1 and 2, of nodes that the draft proposes
