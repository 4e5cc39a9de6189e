"""The device mesh, and where arrays live on it.

The mesh has three axes. `data`: each of its slices works on users of its own. `fsdp`: its slices work on users of their
own too, and each keeps a part of every parameter, gathered layer by layer when it is read (ZeRO 3). `tensor`: its
slices share the users and split the layers' matrices (Megatron).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Annotated

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from atspeed_jax.models.axes import logical_axes
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.utils.distributed import place
from atspeed_jax.utils.ranges import Range, check_ranges

AXES = ("data", "fsdp", "tensor")

# Logical axis name -> mesh axis; names that are not here are not split. The only place that knows which is which.
RULES = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
}
WHOLE_IF_UNEVEN = ("vocab",)  # the catalogue decides how long it is, nobody can change it


Devices = Annotated[int, Range(1, 1_000_000)]


class ShardingError(ValueError):
    """A mesh that cannot be made, or what cannot be split over it."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; data=None: all that fsdp and tensor leave."""

    data: Devices | None = None
    fsdp: Devices = 1
    tensor: Devices = 1

    def __post_init__(self):
        check_ranges(self)


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of `config` over the devices of all processes (axis types Auto: Explicit rejects sharded gathers).

    Raises ShardingError if there are not as many devices; one process alone may leave some out.
    """
    shape = _shape(config)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[: math.prod(shape)])


def _shape(config: MeshConfig) -> tuple[int, int, int]:
    have, inner = jax.device_count(), config.fsdp * config.tensor
    data = max(1, have // inner) if config.data is None else config.data
    need = data * inner
    if need > have or (need < have and (config.data is None or jax.process_count() > 1)):
        raise ShardingError(
            f"mesh data={config.data or 'the rest'}, fsdp={config.fsdp}, tensor={config.tensor} does not fit the "
            f"{have} devices there are: make config.mesh.fsdp * config.mesh.tensor a divisor of {have} and leave "
            "config.mesh.data out, or start on other devices"
        )
    return data, config.fsdp, config.tensor


def fitting_mesh(config: MeshConfig) -> MeshConfig:
    """`config`, or where the devices of all processes are too few or do not divide by it, the mesh nearest to it: as
    large a part of `tensor`, then of `fsdp`, as they do divide by. What a mesh computes does not depend on it."""
    try:
        _shape(config)
    except ShardingError:
        tensor = math.gcd(config.tensor, jax.device_count())
        return MeshConfig(None, math.gcd(config.fsdp, jax.device_count() // tensor), tensor)
    return config


def check_model(mesh: Mesh, model: LlamaConfig, name: str) -> None:
    """Raises ShardingError naming a size of the model `name` that its mesh axis does not divide."""
    sizes = {"heads": model.heads, "kv_heads": model.kv_heads, "mlp": model.intermediate_size}
    for logical, size in (sizes | {"embed": model.hidden_size}).items():
        axis = RULES[logical]
        if size % mesh.shape[axis]:
            field = {"mlp": "intermediate_size", "embed": "hidden_size"}.get(logical, logical)
            raise ShardingError(
                f"{name}.{field}={size} cannot be split evenly over mesh axis {axis}={mesh.shape[axis]}: set "
                f"config.mesh.{axis} to a divisor of {size}, such as {math.gcd(size, mesh.shape[axis])}"
            )


def check_batch(mesh: Mesh, size: int, name: str) -> None:
    """Raises ShardingError if a batch of `size` rows cannot be split over the mesh; name: of its config field."""
    parts = _parts(mesh, RULES["batch"])
    if size % parts:
        raise ShardingError(
            f"{name}={size}: that many rows cannot be split evenly over mesh axes data * fsdp = {parts}; use a "
            f"multiple of {parts} (such as {-(-size // parts) * parts}), or fewer devices"
        )


@contextlib.contextmanager
def logical_rules(mesh: Mesh) -> Iterator[None]:
    """While it lasts the models' logical names mean axes of this mesh (`nn.with_logical_constraint`).

    To be used inside the function that is traced.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(tuple(RULES.items())):
        yield


def sharding(mesh: Mesh, *names: str | None) -> NamedSharding:
    """Sharding of an array whose axes have these logical names; axes not named are not split."""
    return NamedSharding(mesh, PartitionSpec(*(RULES.get(name) for name in names)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of an array that every device holds in full."""
    return sharding(mesh)


def tree_shardings(tree, mesh: Mesh):
    """A sharding for every leaf (array, or shape) of parameters, or of what is shaped like them, by its path.

    Raises ShardingError for an axis that does not divide.
    """

    def one(path, leaf) -> NamedSharding:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        names = list(logical_axes(where))[: leaf.ndim]
        for axis, (name, size) in enumerate(zip(names, leaf.shape, strict=False)):
            parts = _parts(mesh, RULES.get(name))
            if size % parts and name in WHOLE_IF_UNEVEN:
                names[axis] = None
            elif size % parts:
                raise ShardingError(
                    f"axis {axis} ({name}) of {where} {list(leaf.shape)} cannot be split evenly over mesh axis "
                    f"{RULES[name]}={parts}: set config.mesh.{RULES[name]} to a divisor of {size}"
                )
        return sharding(mesh, *names)

    return jax.tree_util.tree_map_with_path(one, tree)


def abstract_on(tree, mesh: Mesh):
    """Tree of jax.ShapeDtypeStruct with the shapes and dtypes of `tree` and the sharding of each leaf."""

    def one(leaf, placement):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement)

    return jax.tree.map(one, tree, tree_shardings(tree, mesh))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a host batch, arrays [B, ...], on the mesh, each split over its first axis.

    Raises ShardingError if the arrays disagree about B or if B is not a multiple of the number of devices on the
    axes that "batch" is split over.
    """
    rows = {name: np.shape(value)[:1] for name, value in batch.items()}
    if not rows or len(set(rows.values())) != 1 or () in rows.values():
        raise ShardingError(
            f"every array of a batch needs the same first axis, got first axes {rows}; "
            "pass arrays [B, ...] (repeat a constant along B, or close over it)"
        )
    (size,) = next(iter(rows.values()))
    check_batch(mesh, size, "batch size")
    return place(dict(batch), sharding(mesh, "batch"))


def own_rows(mesh: Mesh, size: int) -> np.ndarray | None:
    """The rows of a batch of `size` that this process's devices hold, ascending; None where it is alone, for all."""
    if jax.process_count() == 1:
        return None
    slices = sharding(mesh, "batch").addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[own] for own in slices]))


def shard_own_rows(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """`shard_batch` of a batch of which each process has its `own_rows` alone."""
    if jax.process_count() == 1:
        return shard_batch(batch, mesh)
    placement = sharding(mesh, "batch")
    return {name: jax.make_array_from_process_local_data(placement, value) for name, value in batch.items()}


def _parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    """Into how many parts these mesh axes split."""
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh.shape[name] for name in names)
