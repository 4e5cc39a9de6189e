"""The device mesh and where arrays live on it: parameters on every device, batches split over their first axis."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Logical axis name -> mesh axis (None: not split). The only place that knows which is which.
RULES = {"batch": "data"}


class ShardingError(ValueError):
    """A batch that cannot be split over the devices."""


def data_mesh() -> Mesh:
    """One `data` axis over all devices (axis type Auto: Explicit rejects sharded gathers)."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def sharding(mesh: Mesh, *logical_axes: str | None) -> NamedSharding:
    """Sharding of an array whose axes have these logical names; axes not named are not split."""
    return NamedSharding(mesh, PartitionSpec(*(None if axis is None else RULES[axis] for axis in logical_axes)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of an array that every device holds in full."""
    return sharding(mesh)


def abstract_like(tree, placement: NamedSharding):
    """Tree of jax.ShapeDtypeStruct with the shapes and dtypes of `tree` and one sharding for every leaf."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement), tree)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a host batch, arrays [B, ...], on the mesh, each split over its first axis.

    Raises ShardingError if the arrays disagree about B or if B is not a multiple of the number of devices on the
    axis that "batch" is split over.
    """
    rows = {name: np.shape(value)[:1] for name, value in batch.items()}
    if not rows or len(set(rows.values())) != 1 or () in rows.values():
        raise ShardingError(
            f"every array of a batch needs the same first axis, got first axes {rows}; "
            "pass arrays [B, ...] (repeat a constant along B, or close over it)"
        )
    (size,) = next(iter(rows.values()))
    devices = mesh.shape[RULES["batch"]]
    if size % devices:
        raise ShardingError(
            f"a batch of {size} rows cannot be split evenly over {devices} devices; use a batch size that is a "
            f"multiple of {devices} (such as {-(-size // devices) * devices}), or fewer devices"
        )
    return jax.device_put(dict(batch), sharding(mesh, "batch"))
