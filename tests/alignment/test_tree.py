"""The one tree forward against one causal forward per beam, and its nodes against the catalog."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tree_case
from atspeed_jax.alignment.tree import teacher_tree, tree_logits
from atspeed_jax.models.llama import forward
from tree_case import LENGTH, MODEL


@pytest.fixture(scope="module")
def world():
    return tree_case.world()


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
