"""The teacher's beam tree as one masked forward pass: the prompt once, every beam of every level behind it.

Training reads the same level-slotted tree as decoding does (`decoding.beams`), but without a cache: slot s is token s
of the pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from atspeed_jax.decoding.base import Layout, Prompt, ScoreNorm
from atspeed_jax.decoding.beams import LOWEST, Beams, assign_slots, gather_nodes, root_beams
from atspeed_jax.decoding.children import score_children
from atspeed_jax.decoding.inputs import StepInput, concatenate_inputs, level_input, prompt_input
from atspeed_jax.items.trie import Trie, prefix_rows
from atspeed_jax.models.llama import LlamaConfig, apply_masked
from atspeed_jax.shapes import ChildBool, ChildFloat, Logits, NodeBool


class TreeContext(struct.PyTreeNode):
    """The catalogue as alignment needs it: the trie, and the parent (node of depth l) of every node of depth l + 1."""

    trie: Trie
    parent: tuple[Array, ...]


class TeacherTree(struct.PyTreeNode):
    """Nodes of levels 0..M of a batch and how to read them; M is L-2 in training (`teacher.aligned_beams`).

    levels[l]: `Beams` [B, N_l], N_0 = 1 and N_l = K + 1: the teacher's K beams and last the true next item's prefix.
    inputs: the pass over P + sum N_l tokens. is_beam[l] [B, N_l]: nodes of the teacher. is_next[l] [B, N_l]: the node
    that is the true next item's prefix (one, or none where the user has no next item). next_token [B, L].
    """

    levels: tuple[Beams, ...]
    inputs: StepInput
    is_beam: tuple[Bool[Array, "B N"], ...]
    is_next: tuple[Bool[Array, "B N"], ...]
    next_token: Int[Array, "B L"]

    @property
    def n_out(self) -> int:
        return sum(level.count for level in self.levels)

    def split(self, logits: Logits) -> list[Logits]:
        """Splits the logits [B, n_out, V] of the pass into levels, [B, N_l, V] each."""
        ends = np.cumsum([level.count for level in self.levels])
        return jnp.split(logits, ends[:-1].tolist(), axis=1)


def tree_context(trie: Trie, id_tokens: np.ndarray) -> TreeContext:
    """Adds parents to the trie built from sorted ids [U, L]; arrays are padded like the trie's."""
    rows = prefix_rows(id_tokens)
    parents = []
    for level in range(trie.length):
        parent = np.zeros(trie.token[level].shape[0], np.int32)
        parent[: len(rows[level + 1])] = np.searchsorted(rows[level], rows[level + 1], side="right") - 1
        parents.append(jnp.asarray(parent))
    return TreeContext(trie, tuple(parents))


def teacher_tree(
    context: TreeContext, prompt: Prompt, beams: Int[Array, "B M K"], next_id: Int[Array, B]
) -> TeacherTree:
    """Builds the pass of a batch, inside jit.

    beams [B, M, K]: trie nodes of the teacher's settled beams of depth 1..M, -1 for a missing one. next_id [B]:
    row of the true next item's id among the sorted ids, -1 for none. A true prefix that is among the beams is not read
    twice.
    """
    trie, length = context.trie, context.trie.length
    batch, width = prompt.tokens.shape
    depths = range(1, beams.shape[1] + 1)
    layout = Layout(width, (1,) + (beams.shape[2] + 1,) * len(depths))
    nowhere = jnp.zeros((batch,), jnp.int32)
    truth = path_to(context, next_id)
    current = root_beams(prompt, length)
    levels, inputs = [current], [prompt_input(prompt)]
    is_beam, is_next = [current.valid], [(next_id >= 0)[:, None]]
    for level in depths:
        nodes = beams[:, level - 1]
        true_node = truth[level - 1][:, None]
        extra = jnp.where((nodes == true_node).any(1, keepdims=True), -1, true_node)
        nodes = jnp.concatenate([nodes, extra], 1)
        current = _attach(context, current, nodes, level, layout)
        levels.append(current)
        inputs.append(level_input(current, level, prompt, layout, nowhere))
        is_beam.append(current.valid & (jnp.arange(nodes.shape[1]) < nodes.shape[1] - 1))
        is_next.append(current.valid & (nodes == true_node))
    tokens = jnp.stack([trie.token[level][jnp.maximum(truth[level], 0)] for level in range(length)], 1)
    return TeacherTree(tuple(levels), concatenate_inputs(*inputs), tuple(is_beam), tuple(is_next), tokens)


def path_to(context: TreeContext, ids: Int[Array, ...]) -> list[Int[Array, ...]]:
    """Nodes of depth 1..L on the way to each id, -1 where the id is -1."""
    path = [ids]
    for level in range(context.trie.length - 1, 0, -1):
        path.insert(0, jnp.where(ids >= 0, context.parent[level][jnp.maximum(path[0], 0)], -1))
    return path


def _attach(context: TreeContext, parents: Beams, nodes: Int[Array, "B N"], level: int, layout: Layout) -> Beams:
    """Nodes of depth `level` hung below their parents among `parents`, placed; a node whose parent is absent is
    invalid."""
    valid, node = nodes >= 0, jnp.maximum(nodes, 0)
    hit = _is_parent(context, parents, node, level)
    current = gather_nodes(parents, hit.argmax(-1))
    current = current.replace(
        tokens=current.tokens.at[..., level - 1].set(context.trie.token[level - 1][node]),
        node=node,
        valid=valid & hit.any(-1),
    )
    return assign_slots(current, level, layout)


def _is_parent(context: TreeContext, parents: Beams, node, level: int) -> Bool[Array, "B N M"]:
    """Which of the beams `parents` [B, M] is the parent of each node [B, N] of depth `level`."""
    return (context.parent[level - 1][node][:, :, None] == parents.node[:, None]) & parents.valid[:, None]


def tree_logits(model: LlamaConfig, params, tree: TeacherTree, dropout_key: Array | None) -> list[Logits]:
    """A model's logits [B, N_l, V] at every node, level by level, by one forward pass."""
    inputs = tree.inputs
    return tree.split(
        apply_masked(
            model, params, inputs.tokens, inputs.positions, inputs.mask, n_out=tree.n_out, dropout_key=dropout_key
        )
    )


def child_log_probs(
    context: TreeContext, level: int, beams: Beams, logits: Logits, norm: ScoreNorm
) -> tuple[Float[Array, "B N M"], Bool[Array, "B N M"]]:
    """Next-code distributions under the serving constraint, and which entries exist: [B, N, R], under "vocab" norm [B,
    N, R + 1].

    "trie" renormalises over the children. "vocab" keeps the children's log-softmax over the vocabulary and adds one
    bucket, last, for all other tokens: that mass moves beams against each other (ALGORITHM.md section 7).
    """
    children = score_children(context.trie, level, beams, logits, "vocab")
    return constrained(children.log_prob, children.exists, beams.valid, norm)


def path_scores(context: TreeContext, levels: Sequence[Beams], log_probs: Sequence[Array]) -> list[ChildFloat]:
    """Cumulative log-probability of every child of every node [B, N, R], level by level, from `child_log_probs`.

    What does not exist has no meaning here.
    """
    scores: list[ChildFloat] = []
    for level, beams in enumerate(levels):
        edge, _ = context.trie.edges(level, beams.node)
        own = log_probs[level][..., : edge.shape[-1]]  # without the bucket of all other tokens
        if level == 0:
            scores.append(own)
            continue
        above = levels[level - 1]
        parent = _is_parent(context, above, beams.node, level).argmax(-1)
        first = context.trie.row_start[level - 1][jnp.take_along_axis(above.node, parent, 1)]
        row = scores[-1].shape[-1]
        place = parent * row + jnp.clip(beams.node - first, 0, row - 1)
        before = jnp.take_along_axis(scores[-1].reshape(own.shape[0], -1), place, 1)
        scores.append(before[..., None] + own)
    return scores


def listed_log_probs(
    context: TreeContext, levels: Sequence[Beams], log_probs: Sequence[Array], ids: Int[Array, "B K"]
) -> list[Float[Array, "B K"]]:
    """Per level, log-probability of the code that each id [B, K] (rows of the sorted ids, -1: none) goes on with.

    log_probs: see `child_log_probs`. The ids' prefixes must be among the levels' nodes, as those of the teacher's own
    list are; what is not there, or belongs to no id, has no meaning.
    """
    path = path_to(context, ids)
    found = []
    for level, beams in enumerate(levels):
        parent = path[level - 1] if level else jnp.zeros_like(ids)
        place = ((beams.node[:, None] == parent[..., None]) & beams.valid[:, None]).argmax(-1)
        child = path[level] - context.trie.row_start[level][jnp.maximum(parent, 0)]
        row = jnp.take_along_axis(log_probs[level], place[..., None], 1)
        child = jnp.clip(child, 0, row.shape[-1] - 1)
        found.append(jnp.take_along_axis(row, child[..., None], -1)[..., 0])
    return found


def constrained(
    log_prob: ChildFloat, exists: ChildBool, valid: NodeBool, norm: ScoreNorm
) -> tuple[Float[Array, "B N M"], Bool[Array, "B N M"]]:
    """`child_log_probs` from the children's log-softmax over the vocabulary; valid [B, N] marks the nodes."""
    if norm == "trie":
        return log_prob - jax.nn.logsumexp(jnp.where(exists, log_prob, LOWEST), -1, keepdims=True), exists
    mass = jnp.where(exists, jnp.exp(log_prob), 0.0).sum(-1, keepdims=True)
    rest = jnp.log(jnp.clip(1.0 - mass, 1e-6, 1.0))  # clipped: rounding may leave less than nothing
    return jnp.concatenate([log_prob, rest], -1), jnp.concatenate([exists, valid[..., None]], -1)


def to_float16(log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities as they are stored: a masked code's is cut to the least float16, and never becomes -inf."""
    return np.maximum(log_probs, np.finfo(np.float16).min).astype(np.float16)


def stored_log_probs(
    context: TreeContext, levels: Sequence[Beams], stored: Float[Array, "B M R"], norm: ScoreNorm
) -> list[tuple[Float[Array, "B N M"], Bool[Array, "B N M"]]]:
    """`child_log_probs` of every level of a teacher tree from its stored log-softmax over the vocabulary.

    stored [B, 1 + M K, R]: the root's row, then those of the K beams of depth 1..M (`teacher.beam_log_probs`).
    The true next item's node, last of a level, has none.
    """
    found, start = [], 0
    for level, beams in enumerate(levels):
        _, exists = context.trie.edges(level, beams.node)
        taught = beams.count - (level > 0)
        rows = stored[:, start : start + taught, : exists.shape[-1]].astype(jnp.float32)
        rows = jnp.pad(rows, ((0, 0), (0, beams.count - taught), (0, exists.shape[-1] - rows.shape[-1])))
        exists &= beams.valid[..., None] & (jnp.arange(beams.count) < taught)[:, None]
        found.append(constrained(jnp.where(exists, rows, LOWEST), exists, beams.valid, norm))
        start += taught
    return found
