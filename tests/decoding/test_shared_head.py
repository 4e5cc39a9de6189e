"""A head that all prompts share, read before the search: the lists of prompts that are read whole, to the bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import DecodeError, Prompt, SharedHead
from atspeed_jax.decoding.inputs import prompt_input
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.shared_head import begin_cache, check_head, read_head
from atspeed_jax.models.llama import LlamaStep
from atspeed_jax.models.unroll import unroll
from bases import BASE
from cases import BOS, SHAPES, STEP, make_batch
from numpy_llama import wide_params
from table_model import COUNTED

HEAD = np.array([BOS, 9], np.int32)
MISSES, TRIE_NORM, BUDGET = SHAPES[0], SHAPES[7], SHAPES[11]  # of which a part of the batch goes on


def prompts(shape, rng) -> Prompt:
    """The head and 1 to 3 further tokens; the longest prompt has no padding, and padding may hold any token."""
    width = shape.prompt
    lengths = rng.integers(len(HEAD) + 1, width + 1, shape.batch)
    lengths[:2] = len(HEAD) + 1, width
    valid = np.arange(width) >= width - lengths[:, None]
    tokens = rng.integers(2, shape.vocab, valid.shape)
    for row, length in enumerate(lengths):
        tokens[row, width - length :][: len(HEAD)] = HEAD
    return Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(valid))


def headed(batch, prompt, step) -> Prompt:
    draft = read_head(STEP, batch.draft, HEAD) if batch.shape.drafter == "model" else ()
    return prompt.replace(head=SharedHead(HEAD, read_head(step, batch.table, HEAD), draft))


def same(one, other):
    for name in ("ids", "tokens", "score", "valid", "target_calls", "rounds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        (MISSES, "strict"),
        pytest.param(TRIE_NORM, "strict", marks=pytest.mark.slow),
        pytest.param(TRIE_NORM, "stochastic", marks=pytest.mark.slow),
        pytest.param(BUDGET, "strict", marks=pytest.mark.slow),
        pytest.param(MISSES, "relaxed", marks=pytest.mark.slow),
        pytest.param(SHAPES[3], "strict", marks=pytest.mark.slow),  # the popularity prior
    ],
    ids=str,
)
def test_lists_are_those_of_whole_prompts(shape, mode):
    rng, calls = np.random.default_rng(0), []
    for number in range(3):
        batch = make_batch(shape, rng, trie=("full", "some")[number % 2], table="smooth", draft="near")
        prompt = prompts(shape, rng)
        if mode != "strict":
            prompt = prompt.replace(keys=user_keys(number, np.arange(shape.batch)))
        short = headed(batch, prompt, COUNTED)
        same(batch.plain(prompt=short, mode=mode), batch.plain(prompt=prompt, mode=mode))
        COUNTED.calls.forget()
        found = batch.speculative(prompt=short, mode=mode)
        assert COUNTED.calls.take() == (found.rounds, found.target_calls.tolist())
        same(found, batch.speculative(prompt=prompt, mode=mode))
        calls += found.target_calls.tolist()
    assert len(set(calls)) > 1  # some users go on alone


def test_head_then_padding_then_the_rest():
    tokens = jnp.array([[0, 0, 1, 9, 5], [0, 1, 9, 6, 7], [1, 9, 5, 6, 7]])
    prompt = Prompt(tokens, tokens > 0, head=SharedHead(HEAD, None, None))
    assert prompt.slots.astype(int).tolist() == [[1, 1, 0, 0, 1], [1, 1, 0, 1, 1], [1] * 5]
    assert prompt.last_position.tolist() == [2, 3, 4]
    inputs = prompt_input(prompt)
    assert inputs.first_slot == 2
    assert inputs.slots.tolist() == [[2, 3, 4]] * 3
    assert inputs.tokens.tolist() == tokens[:, 2:].tolist()
    read = np.array([[False, False, True], [False, True, True], [True] * 3])
    assert np.asarray(inputs.positions)[read].tolist() == [2, 2, 3, 2, 3, 4]
    assert inputs.mask.prompt.shape == (3, 3, 5)
    assert inputs.mask.prompt[1].astype(int).tolist() == [[0] * 5, [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert (np.asarray(inputs.mask.sees_something()) == read).all()


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_first_slots_of_every_user_hold_the_head(unrolled):
    model = dataclasses.replace(BASE, layers=2)
    params, step = wide_params(model, seed=1), LlamaStep(model, unrolled)
    read = read_head(step, unroll(params) if unrolled else params, HEAD)
    cache = begin_cache(step.init_cache, 3, 7, read)
    for kept, head in zip(jax.tree.leaves(cache), jax.tree.leaves(read), strict=True):
        users = kept.ndim - 4
        for user in range(3):
            own = np.take(np.asarray(kept), user, users)
            np.testing.assert_array_equal(own[..., :2, :], np.take(np.asarray(head), 0, users))
            assert np.abs(own[..., :2, :]).max() > 0
            assert not own[..., 2:, :].any()
    assert jax.tree.map(jnp.shape, begin_cache(step.init_cache, 3, 7, None)) == jax.tree.map(jnp.shape, cache)


@pytest.mark.parametrize(
    ("row", "shown"), [([0, 1, 7, 5], r"\[1, 7, 5\]"), ([0, 0, 1, 9], r"\[1, 9\]"), ([0, 0, 0, 1], r"\[1\]")]
)
def test_a_prompt_that_does_not_share_the_head_is_refused(row, shown):
    tokens = jnp.array([[0, 1, 9, 5], [1, 9, 5, 5], row])
    with pytest.raises(
        DecodeError, match=rf"prompt 2 of the batch is {shown}, expected the 2 tokens.*\[1, 9\], and at"
    ):
        check_head(Prompt(tokens, tokens > 0), HEAD)
    check_head(Prompt(tokens[:2], tokens[:2] > 0), HEAD)
    jax.eval_shape(lambda tokens: check_head(Prompt(tokens, tokens > 0), HEAD), tokens)  # shapes alone cannot be wrong
