"""What must hold for every decoded batch, checked against the oracle."""

from __future__ import annotations

import collections

import numpy as np

import oracle
from cases import Batch, items_of
from table_model import COUNTED, table_logits

ROUNDING = 1e-4  # scores of inexact tables agree to this; an order that hangs on less is not compared


def check_batch(batch: Batch) -> collections.Counter:
    """Decodes a batch both ways and compares with the oracle. -> how many users were compared in which way."""
    length = len(batch.shape.sizes)
    COUNTED.calls.forget()
    plain, plain_calls = batch.plain(), COUNTED.calls.take()
    speculative, speculative_calls = batch.speculative(), COUNTED.calls.take()
    counts = collections.Counter()
    for row, prompt in enumerate(batch.sequences()):
        counts["users"] += 1
        expected = oracle.beam_search(batch.ids, prompt, table_logits(batch.table), batch.shape.beams, batch.shape.norm)
        if not batch.exact and expected.margin < ROUNDING:
            counts["near ties"] += 1
            continue
        for result in (plain, speculative):
            check_user(batch, result, row, expected.items)
        assert plain.target_calls[row] == oracle.plain_calls(batch.ids, expected, batch.shape.norm)
        counts["walks"] += check_walk(batch, speculative, row, prompt)
        counts["global"] += check_global(batch, speculative, row, prompt)
    check_calls(plain, plain_calls, length)
    check_calls(speculative, speculative_calls, length, batch.shape.row_share)
    return counts


def check_user(batch: Batch, result, row: int, expected) -> None:
    """Same items in the same order, same scores, nothing in the other places."""
    beams, found = batch.shape.beams, len(expected)
    assert items_of(result, row) == [item for item, _ in expected]
    assert result.valid[row].tolist() == [True] * found + [False] * (beams - found)
    scores = np.array([score for _, score in expected])
    np.testing.assert_allclose(result.score[row, :found], scores, rtol=0, atol=0 if batch.exact else ROUNDING)
    assert [batch.ids[i] for i in result.ids[row, :found]] == [item for item, _ in expected]
    assert len(set(result.ids[row, :found].tolist())) == found
    assert not result.ids[row, found:].any()
    assert not result.tokens[row, found:].any()


def check_calls(result, executed, length: int, parts: int = 1) -> None:
    """Reported calls are executed ones (`Calls.take`): per user those that wrote one of its tokens, per batch all.

    parts: later rounds read 1/parts of the batch at a time.
    """
    total, written = executed
    assert result.target_calls.tolist() == written
    assert result.rounds == total
    assert 1 <= result.target_calls.min() <= result.target_calls.max() <= length
    later = result.target_calls - 1
    size = -(-len(later) // parts)
    assert max(later.max(), -(-later.sum() // size)) <= total - 1 <= parts * later.max()


def check_walk(batch: Batch, result, row: int, prompt) -> bool:
    """Calls and round 1 as the oracle's walk has them: equal lists would hide a draft that reads a damaged cache."""
    shape = batch.shape
    walk = oracle.strict_walk(
        batch.ids,
        prompt,
        table_logits(batch.table),
        batch.propose(),
        shape.beams,
        shape.widths,
        shape.gamma,
        shape.norm,
        shape.budget,
    )
    if not (batch.exact and shape.drafter == "model") and walk.margin < ROUNDING:
        return False
    assert result.target_calls[row] == walk.calls
    reached, accepted, coverage = (
        (np.array(column) for column in zip(*walk.round_one, strict=True)) if walk.round_one else ([],) * 3
    )
    assert result.round_one.reached[row].tolist() == list(reached)
    assert result.round_one.accepted[row].tolist() == list(accepted)
    came = np.asarray(reached, bool)
    np.testing.assert_allclose(result.round_one.coverage[row][came], np.asarray(coverage)[came], atol=1e-6)
    return True


def check_global(batch: Batch, result, row: int, prompt) -> bool:
    """Where K covers every level before the last, nothing was pruned: the list is the top K of all items."""
    if any(len({item[:level] for item in batch.ids}) > batch.shape.beams for level in range(1, len(batch.shape.sizes))):
        return False
    everything = oracle.every_item(batch.ids, prompt, table_logits(batch.table), batch.shape.norm)
    assert items_of(result, row) == [item for item, _ in everything[: batch.shape.beams]]
    return True
