"""Decoding on many devices: users are split over the mesh axis `data`, and each of its slices stops on its own."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.utils.distributed import place

AXIS = "data"  # other axes of the mesh split the models' parameters, as those are placed


def decode_on_mesh(decode: Callable, arrays, prompt: Prompt, mesh: Mesh) -> Result:
    """`decode(arrays, prompt)` with the rows of the prompt split over the mesh: the same lists.

    decode: hashable, and equal where it does the same, since it is a static argument. arrays: parameters and trie, on
    the mesh already; the lists of a `FilteredTrie` are split like the prompt. Rows that do not divide are filled up
    with copies of the last one, and dropped again. `Result.rounds` is that of the slowest slice.
    """
    rows = prompt.tokens.shape[0]

    def split(x):
        return place(_filled(x, -rows % mesh.shape[AXIS]), NamedSharding(mesh, PartitionSpec(AXIS)))

    filled = jax.tree.map(split, prompt)
    arrays = jax.tree.map(lambda x, by_user: split(x) if by_user else x, arrays, _by_user(arrays))
    result = _decode(decode, mesh, arrays, filled)
    if filled.tokens.shape[0] == rows:
        return result
    return jax.tree.map(lambda x: x[:rows] if x.ndim else x, result)


def lower_on_mesh(decode: Callable, arrays, prompt: Prompt, mesh: Mesh):
    """The program of `decode_on_mesh`, lowered for shapes as they would be placed (jax.ShapeDtypeStruct)."""
    rows = prompt.tokens.shape[0] + -prompt.tokens.shape[0] % mesh.shape[AXIS]
    placement = NamedSharding(mesh, PartitionSpec(AXIS))
    filled = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=placement), prompt)
    return _decode.lower(decode, mesh, arrays, filled)


@functools.partial(jax.jit, static_argnames=("decode", "mesh"))
def _decode(decode: Callable, mesh: Mesh, arrays, prompt: Prompt) -> Result:
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    taken = jax.tree.map(lambda by_user: split if by_user else whole, _by_user(arrays))
    shapes = jax.eval_shape(decode, arrays, prompt)
    out = jax.tree.map(lambda x: split if x.ndim else whole, shapes)

    def own_users(arrays, prompt: Prompt) -> Result:
        result = decode(arrays, prompt)
        return result.replace(rounds=jax.lax.pmax(result.rounds, AXIS))

    # Manual over `data` alone: parameters stay split over the other axes, and a slice's loop waits for no other slice.
    mapped = jax.shard_map(
        own_users, mesh=mesh, in_specs=(taken, split), out_specs=out, axis_names={AXIS}, check_vma=False
    )
    return mapped(arrays, prompt)


def _by_user(arrays):
    """Of each array, whether its rows are those of the prompt: the lists of a `FilteredTrie` alone are."""

    def of(node):
        marks = jax.tree.map(lambda _: False, node)
        return marks.replace(ids=True) if isinstance(node, FilteredTrie) else marks

    return jax.tree.map(of, arrays, is_leaf=lambda node: isinstance(node, FilteredTrie))


def _filled(x: jax.Array, missing: int) -> jax.Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], missing, 0)]) if missing else x
