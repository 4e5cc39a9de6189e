"""Decoding on many devices: the users of a batch are split over the mesh axis `data`.

Each slice of the axis decodes its users by itself and stops when they are finished.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.utils.distributed import place

AXIS = "data"  # other axes of the mesh split the models' parameters, as those are placed
Decode = Callable[[Any, ItemTrie, Prompt], Result]  # (parameters, trie, prompt) -> result


def splits_models(mesh: Mesh | AbstractMesh | None) -> bool:
    """Whether the mesh has axes beside `data`, which split the parameters of models."""
    return mesh is not None and mesh.size > mesh.shape[AXIS]


def decode_on_mesh(decode: Decode, params, trie: ItemTrie, prompt: Prompt, mesh: Mesh) -> Result:
    """Runs `decode(params, trie, prompt)` with the users split over the mesh.

    Args:
      decode: hashable, and equal to another that does the same: it is a static
        argument.
      params: parameters of the models, on the mesh already.
      trie: on the mesh already. Its arrays with a row per user are split like the
        prompt.
      prompt: B users. If B does not divide by the slices, copies of the last user fill
        the last slices and are dropped again. A shared head is on the mesh already.
      mesh: has an axis `data`.

    Returns:
      The result of all B users, the same lists as without a mesh. `Result.rounds` is
      that of the slowest slice.
    """
    rows = prompt.tokens.shape[0]

    def split(x):
        return place(_filled(x, -rows % mesh.shape[AXIS]), NamedSharding(mesh, PartitionSpec(AXIS)))

    filled, trie = (
        jax.tree.map(lambda x, per_user: split(x) if per_user else x, one, one.per_user()) for one in (prompt, trie)
    )
    result = _decode(decode, mesh, params, trie, filled)
    if filled.tokens.shape[0] == rows:
        return result
    return jax.tree.map(lambda x: x[:rows] if x.ndim else x, result)


def lower_on_mesh(decode: Decode, params, trie: ItemTrie, prompt: Prompt, mesh: Mesh):
    """Lowers the program of `decode_on_mesh` for shapes as they would be placed.

    Arguments are those of `decode_on_mesh`, with `jax.ShapeDtypeStruct` for arrays.
    """
    rows = prompt.tokens.shape[0] + -prompt.tokens.shape[0] % mesh.shape[AXIS]
    placement = NamedSharding(mesh, PartitionSpec(AXIS))
    filled = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=placement), prompt)
    return _decode.lower(decode, mesh, params, trie, filled)


@functools.partial(jax.jit, static_argnames=("decode", "mesh"))
def _decode(decode: Decode, mesh: Mesh, params, trie: ItemTrie, prompt: Prompt) -> Result:
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    specs = (jax.tree.map(lambda per_user: split if per_user else whole, one.per_user()) for one in (trie, prompt))
    shapes = jax.eval_shape(decode, params, trie, prompt)
    out = jax.tree.map(lambda x: split if x.ndim else whole, shapes)

    def decode_slice(params, trie: ItemTrie, prompt: Prompt) -> Result:
        result = decode(params, trie, prompt)
        return result.replace(rounds=jax.lax.pmax(result.rounds, AXIS))

    # Manual over `data` alone: parameters stay split over the other axes, and a slice's
    # loop waits for no other slice.
    mapped = jax.shard_map(
        decode_slice,
        mesh=mesh,
        in_specs=(whole, *specs),
        out_specs=out,
        axis_names={AXIS},
        check_vma=False,
    )
    return mapped(params, trie, prompt)


def _filled(x: jax.Array, missing: int) -> jax.Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], missing, 0)]) if missing else x
