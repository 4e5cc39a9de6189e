"""Both decoders with the real model: a Llama, drafted for by another, against the oracle with a float64 NumPy Llama."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import oracle
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from cases import fetch, items_of
from numpy_llama import numpy_llama, wide_params

SIZES = (6, 5, 4)
USERS, PROMPT = 8, 7


def config(dtype):
    return LlamaConfig(
        vocab_size=2 + sum(SIZES),
        hidden_size=16,
        intermediate_size=24,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=6,
        rope_theta=1000.0,
        norm_eps=1e-6,
        tied_embeddings=True,
        dropout=0.0,
        dtype=dtype,
        remat=False,
    )


def catalog(length, share, rng):
    """Sorted ids of `length` codes."""
    offsets = 2 + np.cumsum((0, *SIZES[: length - 1]))
    everything = np.array(list(itertools.product(*map(range, SIZES[:length])))) + offsets
    return everything[rng.random(len(everything)) < share]


def prompts(rng):
    lengths = rng.integers(1, PROMPT + 1, USERS)
    lengths[:2] = 1, PROMPT
    valid = np.arange(PROMPT) >= PROMPT - lengths[:, None]
    tokens = np.where(valid, rng.integers(2, 2 + sum(SIZES), valid.shape), 0)
    tokens[np.arange(USERS), PROMPT - lengths] = 1
    return Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(valid))


def decode(dtype, length, widths, beams, norm, drafter, rng, row_share=1):
    """-> (plain, speculative, the oracle's lists)."""
    model = config(dtype)
    target, draft = wide_params(model, 1), wide_params(model, 2)
    ids, prompt = catalog(length, 0.5, rng), prompts(rng)
    trie = build_trie(ids)
    if drafter == "popularity":
        drafter, draft = PopularityDrafter(), popularity_prior(trie, ids, rng.integers(0, 9, len(ids)))
    else:
        drafter = ModelDrafter(LlamaStep(model))
    search = SearchConfig(widths, 2, norm, beams=beams, row_share=row_share)
    plain = beam_search(LlamaStep(model), target, trie, prompt, beams=beams, score_norm=norm)
    strict = speculative_beam_search(LlamaStep(model), target, drafter, draft, trie=trie, prompt=prompt, config=search)
    logits = numpy_llama(model, target)
    rows = [tuple(map(int, ids_row)) for ids_row in ids]
    sequences = [tuple(t[v].tolist()) for t, v in zip(np.asarray(prompt.tokens), np.asarray(prompt.valid), strict=True)]
    expected = [oracle.beam_search(rows, one, lambda tokens: logits(tokens)[-1], beams, norm) for one in sequences]
    return fetch(plain), fetch(strict), expected


def check(plain, strict, expected, digits, margin):
    compared = 0
    for row, want in enumerate(expected):
        if want.margin < margin:
            continue
        compared += 1
        for result in (plain, strict):
            assert items_of(result, row) == [item for item, _ in want.items]
            np.testing.assert_allclose(result.score[row], [score for _, score in want.items], rtol=0, atol=digits)
    return compared


def test_llama_equals_oracle():
    rng = np.random.default_rng(0)
    plain, strict, expected = decode("float32", 3, (5, 12), 5, "vocab", "model", rng, row_share=4)
    assert check(plain, strict, expected, digits=1e-4, margin=1e-4) >= USERS - 2
    assert len(set(strict.target_calls.tolist())) > 1
    assert strict.target_calls.max() <= 3
    spread = [want.items[0][1] - want.items[-1][1] for want in expected]
    assert min(spread) > 0.1  # the model prefers some items to others


def test_float64_llama_equals_oracle_to_ten_digits():
    """What decides near ties: both decoders in float64, lists equal without exception."""
    with jax.enable_x64(True):
        plain, strict, expected = decode("float64", 2, (5,), 5, "trie", "popularity", np.random.default_rng(1))
    assert strict.score.dtype == np.float64
    assert check(plain, strict, expected, digits=1e-10, margin=1e-9) == USERS


def test_bfloat16_llama_gives_the_same_lists_but_for_near_ties():
    """Scores are within bfloat16's rounding, here 0.06, of float64's for both decoders; a list is certain where no
    choice on the way hangs on twice that."""
    certain = 0
    for seed in (0, 2):
        plain, strict, expected = decode("bfloat16", 2, (5,), 2, "vocab", "model", np.random.default_rng(seed))
        certain += check(plain, strict, expected, digits=0.06, margin=0.12)
        assert plain.score.dtype == strict.score.dtype == np.float32  # scores are summed in float32 all the same
        np.testing.assert_allclose(strict.score, plain.score, rtol=0, atol=0.12)
    assert certain >= 8
