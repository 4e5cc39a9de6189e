"""Rounds on a part of the batch; that lists and calls stay the same is shown by the property tests of both decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.draft import PopularityDrafter
from atspeed_jax.decoding.unfinished import batch_axes, on_unfinished, put_rows, sub_batches, take_rows
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from table_model import TableStep

LLAMA = LlamaConfig(11, 8, 8, 3, 1, 1, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)
BATCH, SHARES = 16, (8, 2)


@pytest.mark.parametrize(
    ("batch", "shares", "sizes"),
    [
        (64, (8, 2), (8, 32, 64)),
        (8, (8, 2), (1, 4, 8)),
        (9, (2, 8), (1, 4, 9)),
        (4, (8, 2), (2, 4)),
        (1, (8, 2), (1,)),
        (3, (2, 3), (1, 3)),
        (64, (), (64,)),
    ],
)
def test_sub_batches(batch, shares, sizes):
    assert sub_batches(batch, shares) == sizes


def test_batch_axes():
    assert batch_axes(TableStep().init_cache, 9) == 0
    cache = LlamaStep(LLAMA).init_cache(BATCH, 9)
    axes = batch_axes(LlamaStep(LLAMA).init_cache, 9)
    assert [x.shape[axis] for x, axis in zip(jax.tree.leaves(cache), jax.tree.leaves(axes), strict=True)] == [BATCH] * 2
    assert jax.tree.leaves(axes) == [1, 1] and batch_axes(PopularityDrafter().init_cache, 9) == ()


def test_rows_are_taken_and_put():
    rng = np.random.default_rng(0)
    tree, axes = {"a": rng.integers(1, 99, (BATCH, 3)), "b": rng.integers(1, 99, (2, BATCH))}, {"a": 0, "b": 1}
    rows = jnp.array([5, 2, 11])
    part = take_rows(tree, axes, rows)
    np.testing.assert_array_equal(part["b"], tree["b"][:, [5, 2, 11]])
    put = put_rows(jax.tree.map(jnp.asarray, tree), axes, rows, jax.tree.map(lambda x: -x, part))
    for name, axis in axes.items():
        sign = np.where(np.isin(np.arange(BATCH), rows), -1, 1).reshape((-1, 1) if axis == 0 else (1, -1))
        np.testing.assert_array_equal(put[name], sign * tree[name])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 9, 15, 16])
def test_smallest_batch_that_holds_the_unfinished_rows_runs(count):
    rng = np.random.default_rng(count)
    unfinished = np.zeros(BATCH, bool)
    unfinished[rng.permutation(BATCH)[:count]] = True
    user = jnp.arange(BATCH)
    keys_of = jax.vmap(jax.random.key)
    prompt = Prompt(user[:, None], jnp.ones((BATCH, 1), bool), keys_of(user))
    trie = FilteredTrie(build_trie(np.array([[0], [1]])), user[:, None], allow=False)
    state = {"todo": jnp.asarray(unfinished), "ran": jnp.zeros((1, BATCH), int), "user": user}

    def one_round(state, trie, prompt):
        """Finished rows are left alone; every argument must be of the same users."""
        same = (prompt.tokens[:, 0] == state["user"]) & (trie.ids[:, 0] == state["user"])
        same &= (jax.random.key_data(prompt.keys) == jax.random.key_data(keys_of(state["user"]))).all(1)
        ran = jnp.where(state["todo"] & same, len(state["user"]), 0)
        return state | {"ran": state["ran"] + ran, "todo": state["todo"] & ~same}

    axes = {"todo": 0, "ran": 1, "user": 0}
    run = jax.jit(lambda state: on_unfinished(one_round, state["todo"], state, axes, trie, prompt, SHARES))
    result = run(state)
    size = next(size for size in sub_batches(BATCH, SHARES) if size >= count)
    assert result["ran"][0].tolist() == np.where(unfinished, size, 0).tolist()
    assert not result["todo"].any() and result["user"].tolist() == list(range(BATCH))
