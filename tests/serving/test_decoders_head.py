"""Decoders that read the head of an instruction once."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.prompts import shared_head
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.items.catalog import BOS, Instruction
from atspeed_jax.serving.decode_users import decode_users, find_ids, prompt_of, without_seen
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.model_calls import traced_calls
from atspeed_jax.serving.settings import DecodeConfig, Setting
from reports import toy_decoders

INSTRUCTION = Instruction((BOS, 5, 6, 7), (8,), (9, 4), (BOS, 5, 6, 3, 9, 4))
HEAD = INSTRUCTION.head[:3]  # what the instruction of no items has too
DECODE = DecodeConfig(widths=(2,), gamma=1, score_norm="vocab")
STRICT = Setting.strict("draft", 2, DECODE)
HISTORIES = [np.array(items, np.int32) for items in ([], [3], [6, 0], [3, 2], [1])]


@pytest.fixture(scope="module")
def worded():
    """The toy behind ten words, with an instruction; decoders that read whole prompts."""
    made = toy_decoders(10)
    made.catalog = dataclasses.replace(made.catalog, instruction=INSTRUCTION)
    made.batches = prompt_batches(made.catalog, HISTORIES, BatchShape(2, (2,), 3))
    assert (made.batches[1]["row"] == -1).any()  # a filler shares the head too
    made.whole = functools.cache(lambda setting: decode_users(made.decoders.build(setting), made.batches, 5))
    made.headed = made.decoders.with_head(shared_head(made.catalog))
    return made


@pytest.mark.parametrize("setting", [Setting.beam_search(2, "vocab"), STRICT], ids=lambda one: one.method)
@pytest.mark.parametrize("unrolled", [False, True])
def test_lists_are_those_of_whole_prompts(worded, setting, unrolled):
    headed = worded.headed.unrolled() if unrolled else worded.headed
    found = decode_users(headed.build(setting), worded.batches, 5)
    assert not differing(found, worded.whole(setting)).any()
    np.testing.assert_allclose(found.score, worded.whole(setting).score, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.calls, worded.whole(setting).calls)
    assert worded.whole(STRICT).calls.max() > 1  # some drafts miss


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["coupled", "relaxed"])
def test_draws_are_those_of_whole_prompts(worded, mode):
    setting, keys = STRICT.searching(mode=mode), user_keys(0, np.arange(5))
    found, whole = (
        decode_users(one.build(setting), worded.batches, 5, keys) for one in (worded.headed, worded.decoders)
    )
    assert not differing(found, whole).any()
    np.testing.assert_array_equal(found.calls, whole.calls)


def test_a_drafter_without_a_model_and_float64(worded):
    setting = dataclasses.replace(STRICT, drafter="popularity")
    found = decode_users(worded.headed.build(setting), worded.batches, 5)
    assert not differing(found, worded.whole(setting)).any()
    with jax.enable_x64(True):
        wide = worded.headed.in_float64()
    assert wide.head.tokens.tolist() == list(HEAD)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((wide.head.target, wide.head.draft))} == {"float64"}


def test_seen_items_are_left_out_behind_a_shared_head(worded):
    setting = Setting.beam_search(2, "vocab")
    seen = [np.unique(items) for items in HISTORIES]
    names = np.arange(5)
    found, whole = (
        find_ids(without_seen(one, setting, worded.catalog, seen), worded.batches, names)[0]
        for one in (worded.headed, worded.decoders)
    )
    np.testing.assert_array_equal(found, whole)


def test_calls_read_the_rest_of_the_prompt_alone(worded):
    prompt = prompt_of(worded.batches[0])
    width = prompt.tokens.shape[1]
    whole, headed = (traced_calls(one, STRICT, prompt) for one in (worded.decoders, worded.headed))
    for long, short in zip((*whole[0], *whole[1]), (*headed[0], *headed[1]), strict=True):
        reads_prompt = long.tokens >= width
        assert short == dataclasses.replace(long, tokens=long.tokens - len(HEAD) * reads_prompt)


def test_a_batch_whose_prompts_do_not_share_the_head_is_refused(worded):
    (batch,) = prompt_batches(
        dataclasses.replace(worded.catalog, instruction=None), HISTORIES[:2], BatchShape(2, (2,), 2)
    )
    with pytest.raises(DecodeError, match=r"prompt 0 of the batch is \[1\], expected the 3 tokens of the shared head"):
        worded.headed.build(STRICT)(prompt_of(batch))
    assert worded.headed.with_head(()).head is None
    assert not worded.headed.with_head(()).build(STRICT)(prompt_of(batch)).faulty.any()
