"""Which model calls a decoder is compared with, and that what is timed alone is what it makes."""

import pytest

from atspeed_jax.serving import model_calls
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import DecodeConfig, Setting
from reports import toy_decoders

DECODE = DecodeConfig(widths=(3,), gamma=1, score_norm="vocab")


def shapes(calls):
    return [(call.batch, call.tokens, call.prompt, call.path, call.slots, call.n_out) for call in calls]


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_plain_beam_search_reads_the_prompt_then_a_level_a_call(two_models, toy_batches, norm):
    first, later = model_calls.traced_calls(
        two_models.decoders, Setting.beam_search(2, norm), prompt_of(toy_batches[0])
    )
    assert shapes(first) == [(1, 5, 5, 0, 7, 1), (1, 2, 5, 1, 7, 2)]
    assert later == []
    assert {call.config for call in first} == {two_models.decoders.target}
    assert model_calls.calls_of(Setting.beam_search(2, norm), 1, first, later) == first[:1]
    assert model_calls.calls_of(Setting.beam_search(2, norm), 2, first, later) == first


def test_calls_of_layers_side_by_side_are_the_same_and_can_be_timed(two_models, toy_batches):
    own, setting = two_models.decoders.unrolled(), Setting.strict("draft", 2, DECODE)
    found = model_calls.traced_calls(own, setting, prompt_of(toy_batches[0]))
    stacked = model_calls.traced_calls(two_models.decoders, setting, prompt_of(toy_batches[0]))
    assert [shapes(calls) for calls in found] == [shapes(calls) for calls in stacked]
    params = {own.target: own.target_params, own.draft: own.draft_params}
    for call in (*found[0], *found[1]):
        assert call.unrolled
        assert model_calls.timed_call(call, params[call.config])() > 0


def test_a_round_of_speculation_is_drafts_and_one_call_of_the_target(two_models, toy_batches):
    setting = Setting.strict("draft", 2, DECODE)
    first, later = model_calls.traced_calls(two_models.decoders, setting, prompt_of(toy_batches[0]))
    assert shapes(first) == [(1, 5, 5, 0, 8, 1), (1, 8, 5, 1, 8, 4)]
    assert [call.config for call in first] == [two_models.decoders.draft, two_models.decoders.target]
    assert shapes(later) == [(1, 2, 5, 1, 8, 2)]
    assert later[0].config == two_models.decoders.target
    assert all(call.contiguous for call in (*first, *later))
    budget = model_calls.traced_calls(two_models.decoders, setting.searching(budget=2), prompt_of(toy_batches[0]))
    assert [call.contiguous for call in budget[0]] == [True, False]  # of 3 drafted nodes the target reads any 2
    assert model_calls.calls_of(setting, 1, first, later) == first
    assert model_calls.calls_of(setting, 3, first, later) == [*first, *later, *later]


def test_calls_know_which_logits_are_left_out(toy_batches):
    worded = toy_decoders(200).decoders
    for norm, first_token in (("trie", 200), ("vocab", 0)):
        calls, _ = model_calls.traced_calls(worded, Setting.beam_search(2, norm), prompt_of(toy_batches[0]))
        assert {call.first_token for call in calls} == {first_token}
        assert model_calls.call_alone(calls[0])[0].first_token == first_token


def test_a_call_alone_can_be_repeated(two_models, toy_batches):
    first, _ = model_calls.traced_calls(two_models.decoders, Setting.beam_search(2, "vocab"), prompt_of(toy_batches[0]))
    for call in first:
        run = model_calls.timed_call(call, two_models.decoders.target_params)
        assert run() > 0
        assert run() > 0
