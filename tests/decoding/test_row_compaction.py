"""Rounds on a part of the batch; that lists and calls stay the same is shown by the property tests of both decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import PopularityDrafter
from atspeed_jax.decoding.row_compaction import (
    batch_axes,
    gather_rows,
    most_passes,
    rows_at_a_time,
    run_on_unfinished,
    scatter_rows,
)
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from table_model import TableStep

LLAMA = LlamaConfig(11, 8, 8, 3, 1, 1, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)
BATCH = 16


@pytest.mark.parametrize(("batch", "share", "size"), [(64, 4, 16), (64, 1, 64), (9, 4, 3), (3, 4, 1), (1, 4, 1)])
def test_rows_at_a_time(batch, share, size):
    assert rows_at_a_time(batch, share) == size


def test_passes_suffice_whatever_each_row_needs():
    """Each pass gives the first `size` unfinished rows a round, as `run_on_unfinished` does."""
    rng, tight = np.random.default_rng(1), 0
    for _ in range(2000):
        batch, rounds = rng.integers(1, 12), rng.integers(1, 5)
        size = rng.integers(1, batch + 1)
        left = rng.integers(0, rounds + 1, batch)
        for _ in range(most_passes(batch, size, rounds)):
            assert (left >= 0).all()
            tight += bool(left.any())
            left[np.flatnonzero(left)[:size]] -= 1
        assert not left.any()
    assert tight > 2000


def test_batch_axes():
    assert batch_axes(TableStep().init_cache, 9) == 0
    cache = LlamaStep(LLAMA).init_cache(BATCH, 9)
    axes = batch_axes(LlamaStep(LLAMA).init_cache, 9)
    assert [x.shape[axis] for x, axis in zip(jax.tree.leaves(cache), jax.tree.leaves(axes), strict=True)] == [BATCH] * 2
    assert jax.tree.leaves(axes) == [1, 1]
    assert batch_axes(PopularityDrafter().init_cache, 9) == ()


def test_rows_are_taken_and_put():
    rng = np.random.default_rng(0)
    tree, axes = {"a": rng.integers(1, 99, (BATCH, 3)), "b": rng.integers(1, 99, (2, BATCH))}, {"a": 0, "b": 1}
    rows = jnp.array([5, 2, 11])
    part = gather_rows(tree, axes, rows)
    np.testing.assert_array_equal(part["b"], tree["b"][:, [5, 2, 11]])
    put = scatter_rows(jax.tree.map(jnp.asarray, tree), axes, rows, jax.tree.map(lambda x: -x, part))
    for name, axis in axes.items():
        sign = np.where(np.isin(np.arange(BATCH), rows), -1, 1).reshape((-1, 1) if axis == 0 else (1, -1))
        np.testing.assert_array_equal(put[name], sign * tree[name])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 9, 15, 16])
def test_the_first_unfinished_rows_have_a_round(count):
    rng = np.random.default_rng(count)
    unfinished = np.zeros(BATCH, bool)
    unfinished[rng.permutation(BATCH)[:count]] = True
    user = jnp.arange(BATCH)
    keys_of = jax.vmap(jax.random.key)
    prompt = Prompt(user[:, None], jnp.ones((BATCH, 1), bool), keys_of(user))
    trie = FilteredTrie(build_trie(np.array([[0], [1]])), user[:, None], allow=False)
    search = Search.of(trie, prompt, SearchConfig((), 1, "vocab", beams=1))
    state = {"todo": jnp.asarray(unfinished), "ran": jnp.zeros((1, BATCH), int), "user": user}

    def one_round(state, search):
        """Finished rows are left alone; every argument must be of the same users."""
        same = (search.prompt.tokens[:, 0] == state["user"]) & (search.trie.ids[:, 0] == state["user"])
        same &= (jax.random.key_data(search.keys) == jax.random.key_data(keys_of(state["user"]))).all(1)
        ran = jnp.where(state["todo"] & same, len(state["user"]), 0)
        return state | {"ran": state["ran"] + ran, "todo": state["todo"] & ~same}

    axes = {"todo": 0, "ran": 1, "user": 0}
    for size in (1, 4, BATCH):
        run = jax.jit(
            lambda state, size=size: run_on_unfinished(one_round, state["todo"], state, search, axes=axes, size=size)
        )
        result, first = run(state), unfinished & (np.cumsum(unfinished) <= size)
        assert result["ran"][0].tolist() == np.where(first, size, 0).tolist()
        assert result["todo"].tolist() == (unfinished & ~first).tolist()
        assert result["user"].tolist() == list(range(BATCH))
