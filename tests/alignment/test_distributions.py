"""Distributions at the nodes of a teacher's tree: probabilities that sum to 1, scores that add up along a path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tree_case
from atspeed_jax.alignment.distributions import child_log_probs, path_scores
from atspeed_jax.alignment.tree import teacher_tree, tree_logits
from tree_case import LENGTH, MODEL


@pytest.fixture(scope="module")
def world():
    return tree_case.world()


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
