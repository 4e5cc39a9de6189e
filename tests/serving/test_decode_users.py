"""Rows back in the users' order, fillers left out, and who counts as a mismatch or as a near tie."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.decoding.base import Result, RoundOne
from atspeed_jax.serving import decode_users as module
from atspeed_jax.serving.decode_users import Decoded, count_differences, decode_users
from atspeed_jax.serving.decoders import NO_ITEM
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting

HISTORIES = [np.array(items, np.int32) for items in ([1], [], [0, 1, 2], [4, 5, 6], [2], [6, 1], [3, 3], [5])]


def answer(tokens: list[int]) -> tuple[int, int]:
    """What the stand-in decoder makes of a prompt without its padding: (any number, calls 1 to 4)."""
    return sum(place * token for place, token in enumerate(tokens, start=1)), 1 + len(tokens) % 4


def stand_in(prompt):
    """A decoder of two places, the second invalid; fillers get an answer like everyone."""
    pairs = [
        answer(row[real].tolist()) for row, real in zip(*map(np.asarray, (prompt.tokens, prompt.valid)), strict=True)
    ]
    numbers, calls = np.array(pairs).T
    both = np.stack([numbers, numbers], 1)
    return Result(
        ids=both,
        tokens=both[..., None],
        score=-both / 2,
        valid=np.broadcast_to([True, False], both.shape),
        target_calls=calls,
        given_up=np.zeros(len(pairs)),
        faulty=np.zeros(len(pairs), int),
        rounds=calls.max(),
        round_one=RoundOne(reached=both > 9, accepted=both > 30, coverage=both / 100),
    )


@pytest.mark.parametrize("seed", range(3))
def test_rows_come_back_in_the_users_order(toy, seed):
    batches = prompt_batches(toy.catalog, HISTORIES, BatchShape(3, (1, 2), 3))
    assert sum(int((batch["row"] < 0).sum()) for batch in batches) > 2
    assert len(batches) == 5 - 1
    rng = np.random.default_rng(seed)
    shuffled = []
    for batch in rng.permutation(np.array(batches, object)):
        order = rng.permutation(3)  # fillers may stand anywhere
        shuffled.append({name: values[order] for name, values in batch.items()})
    decoded = decode_users(stand_in, shuffled, len(HISTORIES))
    expected = [answer([1, *toy.catalog.tokens(items).reshape(-1).tolist()]) for items in HISTORIES]
    assert decoded.ids.tolist() == [[number, -1] for number, _ in expected]
    assert decoded.tokens[..., 0].tolist() == [[number, number] for number, _ in expected]
    assert decoded.valid.tolist() == [[True, False]] * len(expected)
    assert decoded.score[:, 0].tolist() == [-number / 2 for number, _ in expected]
    assert decoded.calls.tolist() == [calls for _, calls in expected]
    assert decoded.reached[:, 0].tolist() == [number > 9 for number, _ in expected]
    assert decoded.accepted[:, 0].tolist() == [number > 30 for number, _ in expected]
    assert decoded.coverage[:, 0].tolist() == [number / 100 for number, _ in expected]
    assert decoded.batches == 4
    assert decoded.batch_rounds == sum(int(stand_in(module.prompt_of(batch)).rounds) for batch in batches)


def test_seconds_are_those_of_all_batches_without_the_warm_up(monkeypatch):
    """Each shape is decoded once more, first, outside the measured time; a row of filler costs its share."""
    now, durations = [0.0], iter([100, 1, 2, 200, 4, 8])

    def decode(prompt):
        now[0] += next(durations)
        return stand_in(prompt)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    batches = [
        {"row": np.array(rows), "tokens": np.ones((2, width), np.int32), "valid": np.ones((2, width), bool)}
        for rows, width in (([0, 3], 5), ([1, -1], 5), ([2, 4], 9), ([5, -1], 5))
    ]
    decoded = decode_users(decode, batches, 6)
    assert (decoded.seconds, decoded.batches) == (1 + 2 + 4 + 8, 4)
    assert next(durations, None) is None


@pytest.mark.parametrize("rows", [[0, 1, 1], [0, -1, 2], [0, 1, 3]])
def test_batches_that_miss_or_repeat_a_user_are_refused(rows):
    batch = {"row": np.array(rows), "tokens": np.ones((3, 1), np.int32), "valid": np.ones((3, 1), bool)}
    with pytest.raises(ValueError, match=r"expected each of 0..2 once"):
        decode_users(stand_in, [batch], 3)


@pytest.fixture
def decoded_again(monkeypatch):
    """Every decode for a second look: (prompt tokens, dtype of the scores)."""
    seen = []

    def spy(decode, batches, users, keys):
        result = decode_users(decode, batches, users, keys)
        seen.append((np.asarray(batches[0]["tokens"]).tolist(), result.score.dtype.name))
        return result

    monkeypatch.setattr(module, "decode_users", spy)
    return seen


@pytest.fixture(scope="module")
def lists(toy):
    """(batches, lists of plain beam search, K = 3)."""
    batches = prompt_batches(toy.catalog, HISTORIES[:5], BatchShape(2, (2,), 4))
    return batches, decode_users(toy.decoders.build(Setting.beam_search(3, "vocab")), batches, 5)


def with_first_two_places_exchanged(decoded: Decoded, users: list[int]) -> Decoded:
    tokens = decoded.tokens.copy()
    tokens[users, :2] = tokens[users, 1::-1]
    assert (tokens[users] != decoded.tokens[users]).any((1, 2)).all()
    return dataclasses.replace(decoded, tokens=tokens)


def test_equal_lists_are_not_decoded_again(toy, lists, decoded_again):
    batches, decoded = lists
    assert count_differences(
        toy.decoders, Setting.beam_search(3, "trie"), Setting.beam_search(3, "vocab"), decoded, decoded, batches
    ) == (0, 0)
    assert decoded_again == []


def test_a_difference_that_float64_does_not_see_is_a_near_tie(toy, lists, decoded_again):
    batches, decoded = lists
    planted = with_first_two_places_exchanged(decoded, [2])
    setting = Setting.beam_search(3, "vocab")
    assert count_differences(toy.decoders, setting, setting, planted, decoded, batches) == (0, 1)
    prompt = [1, *toy.catalog.tokens(HISTORIES[2][-2:]).reshape(-1).tolist()]
    assert decoded_again == [([prompt], "float64")] * 2


def test_a_difference_that_stays_in_float64_is_a_mismatch(toy, lists, decoded_again):
    """Two decoders that do differ: their scores are normalised over other sets."""
    batches, decoded = lists
    planted = with_first_two_places_exchanged(decoded, [0, 4])
    assert count_differences(
        toy.decoders, Setting.beam_search(3, "trie"), Setting.beam_search(3, "vocab"), planted, decoded, batches
    ) == (2, 0)
    assert [dtype for _, dtype in decoded_again] == ["float64"] * 4


def test_codes_that_no_item_has_are_compared_by_their_codes(lists):
    """They share one number, so lists of them alone would otherwise all be equal."""
    _, decoded = lists
    nowhere = dataclasses.replace(decoded, ids=np.full_like(decoded.ids, NO_ITEM))
    assert not differing(nowhere, nowhere).any()
    assert differing(nowhere, with_first_two_places_exchanged(nowhere, [1])).tolist() == [False, True, *[False] * 3]
    assert differing(nowhere, dataclasses.replace(nowhere, tokens=nowhere.tokens + 1)).all()
