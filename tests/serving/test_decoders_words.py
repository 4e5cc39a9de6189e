"""Decoders whose vocabulary has words before the item codes, as that of a pretrained model."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.models.llama import LlamaStep
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import DecodeConfig, Setting
from reports import toy_decoders

WORDS = 200  # 6 codes behind them
DECODE = DecodeConfig(widths=(1,), gamma=1, score_norm="trie")
HISTORIES = [np.array(items, np.int32) for items in ([], [3], [6, 0], [3, 2], [1], [2, 2], [5, 1], [0])]
BOTH = (Setting.beam_search(1, "trie"), Setting.strict("draft", 1, DECODE))


@pytest.mark.parametrize(
    ("tied", "mode"),
    [
        (False, "strict"),
        pytest.param(True, "strict", marks=pytest.mark.slow),
        pytest.param(True, "stochastic", marks=pytest.mark.slow),
        pytest.param(False, "coupled", marks=pytest.mark.slow),
        pytest.param(True, "relaxed", marks=pytest.mark.slow),
    ],
)
def test_logits_of_codes_alone_give_the_lists_of_all_logits(tied, mode):
    worded = toy_decoders(WORDS, tied=tied)
    (batch,) = prompt_batches(worded.catalog, HISTORIES, BatchShape(2, (2,), 8))
    keys = None if mode == "strict" else user_keys(0, np.arange(8))
    whole = dataclasses.replace(worded.decoders, first_code=0)
    speculative = BOTH[1].searching(mode=mode)
    for setting in (speculative.baseline, speculative):
        program = worded.decoders.program(setting)[0]
        assert program.step.first_token == WORDS
        if setting is speculative:
            assert program.drafter.model.first_token == WORDS
        cut, expected = (one.build(setting)(prompt_of(batch, keys)) for one in (worded.decoders, whole))
        assert not cut.faulty.any()
        for name in ("ids", "tokens", "valid", "target_calls"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(expected, name))
        np.testing.assert_allclose(cut.score, expected.score, rtol=0, atol=1e-5)
    assert mode == "relaxed" or set(np.asarray(cut.target_calls).tolist()) == {1, 2}  # some drafts miss


def test_logits_are_left_out_where_words_are_most_of_the_vocabulary(toy):
    worded = toy_decoders(WORDS).decoders
    assert worded.first_logit("trie") == WORDS
    assert worded.first_logit("vocab") == 0  # its log-sum-exp is over all tokens
    assert toy.decoders.first_code == 2
    assert toy.decoders.first_logit("trie") == 0
    assert toy.decoders.program(BOTH[0])[0].step == LlamaStep(toy.decoders.target)
    split, whole = (AbstractMesh(sizes, ("data", "fsdp", "tensor")) for sizes in ((1, 1, 2), (4, 1, 1)))
    assert dataclasses.replace(worded, mesh=split).first_logit("trie") == 0
    assert dataclasses.replace(worded, mesh=whole).first_logit("trie") == WORDS


def test_a_model_without_the_first_logits_is_refused_under_the_norm_that_needs_them():
    worded = toy_decoders(WORDS).decoders
    program, params = worded.program(BOTH[1])
    (batch,) = prompt_batches(toy_decoders(WORDS).catalog, HISTORIES[:1], BatchShape(2, (2,), 1))
    wrong = dataclasses.replace(program, search=dataclasses.replace(program.search, score_norm="vocab"))
    with pytest.raises(DecodeError, match="leaves out the logits of the tokens below 200"):
        jax.eval_shape(wrong, params, worded.trie, prompt_of(batch))
