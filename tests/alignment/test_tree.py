"""The one tree forward against one causal forward per beam, and its parts against the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment.tree import child_log_probs, path_scores, teacher_tree, tree_context, tree_logits
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, forward, init_params

pytestmark = pytest.mark.usefixtures("quick_compilation")

VOCAB, LENGTH, BEAMS = 14, 3, 3
MODEL = LlamaConfig(VOCAB, 16, 32, 2, 2, 1, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(0, 4, (20, LENGTH)), axis=0) + 2 + 4 * np.arange(LENGTH)
    context = tree_context(build_trie(ids), ids)
    prompt_tokens = np.array([[0, 0, 1, 3, 8], [1, 2, 7, 11, 5]])
    prompt = Prompt(jnp.asarray(prompt_tokens, jnp.int32), jnp.asarray(prompt_tokens > 0))
    nodes = [np.unique(ids[:, :depth], axis=0) for depth in range(1, LENGTH + 1)]
    # Beams of depth 1 and 2 such that every parent is there; user 1 misses one place of depth 2.
    first = np.array([[0, 1, 2], [1, 2, 3]])
    second = np.full((2, BEAMS), -1)
    for user in range(2):
        parents = nodes[0][first[user], 0]
        allowed = [n for n, prefix in enumerate(nodes[1]) if prefix[0] in parents]
        second[user, : 3 - user] = allowed[: 3 - user]
    beams = jnp.asarray(np.stack([first, second], 1), jnp.int32)
    params = jax.tree.map(lambda x: 5 * x, init_params(MODEL, jax.random.key(0)))
    return ids, context, prompt, nodes, beams, params


@pytest.mark.parametrize("next_ids", [(0, 5), (-1, 3)])
def test_tree_forward_equals_one_forward_per_node(world, next_ids):
    _ids, context, prompt, nodes, beams, params = world
    tree = jax.jit(teacher_tree)(context, prompt, beams, jnp.asarray(next_ids, jnp.int32))
    logits = jax.jit(lambda params: tree_logits(MODEL, params, tree, None))(params)
    single = jax.jit(lambda params, tokens, valid: forward(MODEL, params, tokens, valid))
    checked = 0
    for user in range(2):
        real = np.asarray(prompt.tokens[user])[np.asarray(prompt.valid[user])]
        for level in range(LENGTH):
            for place in range(tree.levels[level].count):
                if not tree.levels[level].valid[user, place]:
                    continue
                prefix = np.asarray(tree.levels[level].tokens[user, place, :level])
                node = int(tree.levels[level].node[user, place])
                if level:
                    np.testing.assert_array_equal(prefix, nodes[level - 1][node])
                whole = np.concatenate([real, prefix])
                padded = jnp.asarray(np.pad(whole, (8 - len(whole), 0)))[None]  # one shape, one compilation
                alone = single(params, padded, padded > 0)[0, -1]
                np.testing.assert_allclose(logits[level][user, place], alone, atol=2e-5)
                checked += 1
    assert checked >= 12


def test_the_true_next_item_is_marked_once_per_level(world):
    ids, context, prompt, _nodes, beams, _ = world
    tree = teacher_tree(context, prompt, beams, jnp.array([4, len(ids) - 1], jnp.int32))
    np.testing.assert_array_equal(tree.next_token, ids[[4, len(ids) - 1]])
    for level in range(LENGTH):
        np.testing.assert_array_equal(tree.is_next[level].sum(1), [1, 1])
        for user, row in ((0, 4), (1, len(ids) - 1)):
            place = int(tree.is_next[level][user].argmax())
            np.testing.assert_array_equal(tree.levels[level].tokens[user, place, :level], ids[row, :level])


def test_a_true_prefix_among_the_beams_is_not_read_twice(world):
    _ids, context, prompt, _nodes, beams, _ = world
    tree = teacher_tree(context, prompt, beams, jnp.array([0, 0], jnp.int32))  # id 0 begins with node 0 of depth 1
    assert not tree.levels[1].valid[0, -1]
    assert tree.is_next[1][0, 0]
    assert tree.levels[1].valid[1, -1]
    assert not tree.is_beam[1][1, -1]


def test_no_next_item_marks_nothing(world):
    _, context, prompt, _, beams, _ = world
    tree = teacher_tree(context, prompt, beams, jnp.array([-1, -1], jnp.int32))
    assert not any(bool(mask.any()) for mask in tree.is_next)
    assert sum(int(mask.sum()) for mask in tree.is_beam) == 2 + 6 + 5


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_child_distributions_sum_to_one(world, norm):
    _ids, context, prompt, _, beams, params = world
    tree = teacher_tree(context, prompt, beams, jnp.array([-1, -1], jnp.int32))
    logits = tree_logits(MODEL, params, tree, None)
    for level in range(LENGTH):
        log_prob, exists = child_log_probs(context, level, tree.levels[level], logits[level], norm)
        total = jnp.where(exists, jnp.exp(log_prob), 0).sum(-1)
        np.testing.assert_allclose(total, tree.levels[level].valid, atol=1e-5)
    if norm == "vocab":  # the children keep their log-softmax over the vocabulary
        edge, there = context.trie.edges(0, tree.levels[0].node)
        token = context.trie.token[0][edge]
        expected = jnp.take_along_axis(jax.nn.log_softmax(logits[0], -1), token, -1)
        got, _ = child_log_probs(context, 0, tree.levels[0], logits[0], norm)
        np.testing.assert_allclose(jnp.where(there, got[..., :-1] - expected, 0), 0, atol=1e-5)


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_path_scores_add_up_along_every_path(world, norm):
    ids, context, prompt, nodes, beams, params = world
    tree = teacher_tree(context, prompt, beams, jnp.array([0, len(ids) - 1], jnp.int32))
    logits = tree_logits(MODEL, params, tree, None)
    found = [child_log_probs(context, level, tree.levels[level], logits[level], norm) for level in range(LENGTH)]
    scores = jax.jit(path_scores)(context, tree.levels, [log_prob for log_prob, _ in found])
    known = {(user, ()): 0.0 for user in range(2)}
    for level, beams_of_level in enumerate(tree.levels):
        edge, there = context.trie.edges(level, beams_of_level.node)
        for user, place, row in np.argwhere(np.asarray(there & beams_of_level.valid[..., None])):
            path = tuple(nodes[level][int(edge[user, place, row])].tolist())
            known[user, path] = known[user, path[:-1]] + float(found[level][0][user, place, row])
            assert float(scores[level][user, place, row]) == pytest.approx(known[user, path], abs=1e-5)
    assert len(known) > 20
