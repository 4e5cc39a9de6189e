"""The teacher's beam tree as one forward pass.

The pass reads the prompt once, then every beam of every level. Training reads the same
slotted tree as decoding (decoding/ALGORITHM.md section 2), but without a cache: slot s
is token s of the pass.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Int

from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.beams import Beams, assign_slots, gather_nodes, root_beams
from atspeed_jax.decoding.inputs import concatenate_inputs, level_input, prompt_input
from atspeed_jax.items.trie import Trie, prefix_rows
from atspeed_jax.models.llama import LlamaConfig, apply_masked
from atspeed_jax.shapes import LevelLogits, Logits, StepInput


class TreeContext(struct.PyTreeNode):
    """The catalog as alignment reads it.

    Attributes:
      trie: the exact trie.
      parent: per level l, the parent (a node of depth l) of every node of depth l + 1.
    """

    trie: Trie
    parent: tuple[Array, ...]


class TeacherTree(struct.PyTreeNode):
    """Nodes of levels 0..M of a batch, and the forward pass that reads them.

    M is L-2 in training (`teacher_beams.aligned_beams`). N_l counts the nodes of level l: 1
    at the root, K + 1 elsewhere. These are the teacher's K beams, and last the prefix
    of the true next item.

    Attributes:
      levels: per level, the nodes [B, N_l].
      inputs: the pass over P + N_1 + ... + N_M tokens.
      is_beam: per level, the beams of the teacher [B, N_l].
      is_next: per level, the node that is the prefix of the true next item [B, N_l];
        none for a user without a next item.
      next_token: tokens of the true next item [B, L].
    """

    levels: tuple[Beams, ...]
    inputs: StepInput
    # "_", since N_l differs between levels.
    is_beam: tuple[Bool[Array, "B _"], ...]
    is_next: tuple[Bool[Array, "B _"], ...]
    next_token: Int[Array, "B L"]

    @property
    def n_out(self) -> int:
        """Number of nodes, whose logits the pass returns."""
        return sum(level.count for level in self.levels)

    def split(self, logits: Logits) -> list[LevelLogits]:
        """Splits the logits [B, n_out, V] of the pass into levels, [B, N_l, V] each."""
        ends = np.cumsum([level.count for level in self.levels])
        return jnp.split(logits, ends[:-1].tolist(), axis=1)


def tree_context(trie: Trie, id_tokens: np.ndarray) -> TreeContext:
    """Adds the parent of every node to a trie.

    Args:
      trie: built from id_tokens.
      id_tokens: the sorted ids [U, L].

    Returns:
      The context; its arrays are padded like those of the trie.
    """
    rows = prefix_rows(id_tokens)
    parents = []
    for level in range(trie.length):
        parent = np.zeros(trie.token[level].shape[0], np.int32)
        # A node's prefix begins at a row of the ids; its parent is the prefix around
        # that row.
        parent[: len(rows[level + 1])] = np.searchsorted(rows[level], rows[level + 1], side="right") - 1
        parents.append(jnp.asarray(parent))
    return TreeContext(trie, tuple(parents))


def teacher_tree(
    context: TreeContext, prompt: Prompt, beams: Int[Array, "B M K"], next_id: Int[Array, " B"]
) -> TeacherTree:
    """Builds the pass of a batch; to be called under jit.

    Args:
      context: the catalog.
      prompt: the prompts [B, P].
      beams: trie nodes of the teacher's beams of depth 1..M, -1 for a missing one.
      next_id: row of the true next item's id among the sorted ids, -1 for none.

    Returns:
      The tree.
    """
    trie, length = context.trie, context.trie.length
    batch, width = prompt.tokens.shape
    depths = range(1, beams.shape[1] + 1)
    # One node more than there are beams: the true next item's, which the next-item loss
    # needs at every level whether the teacher found it or not.
    layout = Layout(width, (1,) + (beams.shape[2] + 1,) * len(depths))
    # Every row begins at the root, so no level is idle (`level_input`).
    at_root = jnp.zeros((batch,), jnp.int32)
    truth = path_to(context, next_id)
    # The root is the last token of the prompt, so the prompt's input brings it along.
    current = root_beams(prompt, length)
    levels, inputs = [current], [prompt_input(prompt)]
    is_beam, is_next = [current.valid], [(next_id >= 0)[:, None]]
    for level in depths:
        nodes = beams[:, level - 1]
        true_node = truth[level - 1][:, None]
        # A true prefix that is a beam already is not read twice.
        extra = jnp.where((nodes == true_node).any(1, keepdims=True), -1, true_node)
        nodes = jnp.concatenate([nodes, extra], 1)
        current = _attach(context, current, nodes, level, layout)
        levels.append(current)
        inputs.append(level_input(current, level, prompt, layout, at_root))
        # The last node is no beam of the teacher, even if it is valid.
        is_beam.append(current.valid & (jnp.arange(nodes.shape[1]) < nodes.shape[1] - 1))
        is_next.append(current.valid & (nodes == true_node))
    # A user without a next item gets any tokens here; `is_next` leaves them out.
    tokens = jnp.stack([trie.token[level][jnp.maximum(truth[level], 0)] for level in range(length)], 1)
    return TeacherTree(tuple(levels), concatenate_inputs(*inputs), tuple(is_beam), tuple(is_next), tokens)


def path_to(context: TreeContext, ids: Int[Array, ...]) -> list[Int[Array, ...]]:
    """Finds the trie nodes on the way to each id.

    Args:
      context: the catalog.
      ids: rows of the sorted ids, -1 for none; any shape.

    Returns:
      Per depth 1..L, the nodes in the shape of ids, -1 for none.
    """
    # A node of depth L is a row of the sorted ids, so the way up begins with the ids.
    path = [ids]
    for level in range(context.trie.length - 1, 0, -1):
        path.insert(0, jnp.where(ids >= 0, context.parent[level][jnp.maximum(path[0], 0)], -1))
    return path


def _attach(context: TreeContext, parents: Beams, nodes: Int[Array, "B N"], level: int, layout: Layout) -> Beams:
    """Attaches nodes of depth `level` to their parents and places them in their slots.

    A node without a parent among `parents` is invalid: the model could not read its
    path.
    """
    # -1 must not index an array from its end.
    valid, node = nodes >= 0, jnp.maximum(nodes, 0)
    hit = is_parent(context, parents, node, level)
    # Starting from the parent, a node inherits its tokens and its path.
    current = gather_nodes(parents, hit.argmax(-1))
    current = current.replace(
        tokens=current.tokens.at[..., level - 1].set(context.trie.token[level - 1][node]),
        node=node,
        valid=valid & hit.any(-1),
    )
    return assign_slots(current, level, layout)


def is_parent(context: TreeContext, parents: Beams, node, level: int) -> Bool[Array, "B N M"]:
    """Marks which of `parents` [B, M] is the parent of each node [B, N] of `level`."""
    # An invalid beam may hold the number of a real node.
    return (context.parent[level - 1][node][:, :, None] == parents.node[:, None]) & parents.valid[:, None]


def tree_logits(model: LlamaConfig, params, tree: TeacherTree, dropout_key: Array | None) -> list[LevelLogits]:
    """Computes a model's logits at every node in one forward pass.

    Args:
      model: sizes of the model.
      params: its parameters.
      tree: the tree to read.
      dropout_key: key of dropout; None turns dropout off.

    Returns:
      Per level, logits [B, N_l, V].
    """
    return tree.split(apply_masked(model, params, tree.inputs, n_out=tree.n_out, dropout_key=dropout_key))
