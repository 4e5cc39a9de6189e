"""Decoders for every setting, on a catalog smaller than K and on histories of every length."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.decoders import NO_ITEM
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import DecodeConfig, Setting

K = 8  # of 6 ids
DECODE = DecodeConfig(widths=("all",), gamma=1, score_norm="vocab")
HISTORIES = [np.array(items, np.int32) for items in ([], [3], [6, 0, 1, 3, 2], [3, 2])]


def decode(toy, setting, histories=HISTORIES):
    batches = prompt_batches(toy.catalog, histories, BatchShape(2, (2,), 4))
    return decode_users(toy.decoders.build(setting), batches, len(histories))


@pytest.fixture(scope="module")
def baseline(toy):
    return decode(toy, Setting.beam_search(K, "vocab"))


def test_a_k_beyond_the_catalog_flags_the_places_it_cannot_fill(baseline):
    assert baseline.ids.shape == (4, K)
    assert (np.sort(baseline.ids[:, :6]) == np.arange(6)).all()  # all there are, once each
    assert (baseline.ids[:, 6:] == -1).all()
    assert (np.diff(baseline.score[:, :6]) <= 0).all()
    assert baseline.calls.tolist() == [2, 2, 2, 2]
    assert baseline.reached is None


def test_users_without_history_and_with_a_long_one(baseline):
    """The longest keeps its newest two items, which are the whole history of the last user."""
    np.testing.assert_array_equal(baseline.ids[2], baseline.ids[3])
    np.testing.assert_array_equal(baseline.score[2], baseline.score[3])
    assert np.isfinite(baseline.score[0, :6]).all()
    assert len({tuple(scores) for scores in baseline.score[[0, 1, 2]].tolist()}) == 3


@pytest.mark.parametrize("drafter", ["draft", "popularity"])
def test_speculative_lists_are_those_of_beam_search(toy, baseline, drafter):
    decoded = decode(toy, Setting.strict(drafter, K, DECODE))
    assert not differing(decoded, baseline).any()
    assert decoded.calls.tolist() == [1, 1, 1, 1]  # "all" cannot miss
    assert decoded.accepted.all()
    assert decoded.reached.all()
    assert (decoded.coverage == 1).all()


@pytest.mark.parametrize("drafter", ["none", "draft", "popularity"])
def test_layers_side_by_side_give_the_same_lists(toy, baseline, drafter):
    apart = SimpleNamespace(catalog=toy.catalog, decoders=toy.decoders.unrolled())
    assert set(apart.decoders.target_params) == {"embedding", "norm", "layers_0"}
    decoded = decode(apart, Setting.strict(drafter, K, DECODE))
    assert not differing(decoded, baseline).any()
    assert decoded.calls.tolist() == [2 if drafter == "none" else 1] * 4


def test_layers_side_by_side_can_be_widened(toy, baseline):
    with jax.enable_x64(True):
        apart = SimpleNamespace(catalog=toy.catalog, decoders=toy.decoders.unrolled().in_float64())
        decoded = decode(apart, Setting.beam_search(K, "vocab"))
    assert decoded.score.dtype == np.float64
    assert not differing(decoded, baseline).any()


def test_layers_side_by_side_without_a_draft(toy):
    apart = dataclasses.replace(toy.decoders, draft=None, draft_params=None).unrolled()
    assert apart.draft_params is None
    assert apart.build(Setting.beam_search(2, "vocab"))


def test_any_code_of_a_level_may_follow_under_the_papers_constraint(toy):
    """Three codes at both levels: nine sequences, six of them ids."""
    setting = dataclasses.replace(Setting.beam_search(9, "vocab"), constraint="levels")
    decoded = decode(toy, setting)
    assert (np.sort(decoded.ids) == [NO_ITEM] * 3 + list(range(6))).all()
    strict = dataclasses.replace(Setting.strict("draft", 9, DECODE), constraint="levels")
    assert not differing(decode(toy, strict), decoded).any()
    assert differing(decoded, dataclasses.replace(decoded, score=decoded.score - (decoded.ids == NO_ITEM))).all()
    with pytest.raises(DecodeError, match="constraint='levels' with drafter='popularity'"):
        toy.decoders.build(dataclasses.replace(Setting.strict("popularity", 9, DECODE), constraint="levels"))


@pytest.mark.parametrize(
    ("widths", "beams", "message"),
    [
        ((), 2, "has 0 entries; ids of length 2 need 1"),
        (("all", 4), 2, "has 2 entries; ids of length 2 need 1"),
        ((1,), 2, r"width 1 of level 1 is below min\(K=2, 3 prefixes of that level\) = 2"),
        ((2,), 8, r"width 2 of level 1 is below min\(K=8, 3 prefixes of that level\) = 3"),
    ],
)
def test_widths_that_cannot_work_are_refused_before_decoding(toy, widths, beams, message):
    with pytest.raises(DecodeError, match=message):
        toy.decoders.build(Setting.strict("popularity", beams, dataclasses.replace(DECODE, widths=widths)))


def test_in_float64_widens_everything_and_leaves_the_original(toy):
    with jax.enable_x64(True):
        wide = toy.decoders.in_float64()
    leaves = jax.tree.leaves((wide.target_params, wide.draft_params, wide.prior))
    assert {leaf.dtype.name for leaf in leaves} == {"float64"}
    assert wide.target.dtype == wide.draft.dtype == "float64"
    assert toy.decoders.target.dtype == "float32"
    for a, b in zip(jax.tree.leaves(wide.target_params), jax.tree.leaves(toy.decoders.target_params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_draft_model_is_needed_for_the_popularity_prior(toy):
    lone = dataclasses.replace(toy.decoders, draft=None, draft_params=None)
    with jax.enable_x64(True):
        assert lone.in_float64().draft is None
    assert callable(lone.build(Setting.strict("popularity", K, DECODE)))


@pytest.mark.parametrize(
    ("setting", "widths", "budget", "told"),
    [
        (Setting.strict("draft", 5, DecodeConfig((2,), 1, "vocab")), (3,), None, ["widths (2,) -> (3,)"]),
        (
            Setting.strict("draft", 5, DecodeConfig((2,), 1, "vocab", budget=4)),
            (3,),
            5,
            ["widths (2,) -> (3,), budget 4 -> 5"],
        ),
        (Setting.strict("popularity", 5, DecodeConfig((1,), 1, "trie")), (2,), None, ["widths (1,) -> (2,)"]),
        (Setting.strict("draft", 2, DecodeConfig((2,), 1, "vocab", budget=4)), (2,), 4, []),
        (Setting.strict("draft", 5, DecodeConfig(("all",), 1, "vocab")), ("all",), None, []),
        (Setting.beam_search(5, "vocab"), (), None, []),
    ],
)
def test_what_is_too_small_for_k_is_raised_to_what_k_needs(toy, setting, widths, budget, told):
    """There are three first codes, two of them with more than one item."""
    said = []
    fitted = toy.decoders.fitted(setting, said.append)
    assert fitted == setting.searching(widths=widths, budget=budget)
    assert said == [f"raised to what K=5 needs: {text}" for text in told]
    toy.decoders.build(fitted)  # it can be decoded


def test_raised_widths_keep_to_the_levels_of_the_constraint(toy):
    setting = dataclasses.replace(Setting.strict("draft", 9, DecodeConfig((1,), 1, "trie")), constraint="levels")
    assert toy.decoders.fitted(setting, print).search.widths == (3,)
    with pytest.raises(DecodeError, match="has 2 entries; ids of length 2 need 1"):
        toy.decoders.fitted(setting.searching(widths=(3, 3)), print)
