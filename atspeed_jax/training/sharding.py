"""The device mesh, and which part of an array each device holds.

The mesh has three axes:

data     each slice works on different users
fsdp     each slice works on different users, and holds a part of every parameter,
         which is gathered layer by layer when it is read (ZeRO 3)
tensor   all slices work on the same users and split the matrices of a layer (Megatron)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from atspeed_jax.models.axes import is_joined, logical_axes
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.utils.distributed import place
from atspeed_jax.utils.ranges import Range, check_ranges

AXES = ("data", "fsdp", "tensor")

# Logical axis name -> mesh axis. Other names are not split. No other place knows this
# mapping.
RULES: dict[str | None, Any] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
}
WHOLE_IF_UNEVEN = ("vocab",)  # the catalog decides its size, so no user can make it divide


Devices = Annotated[int, Range(1, 1_000_000)]


class ShardingError(ValueError):
    """A mesh that cannot be made, or an array that cannot be split over it."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh.

    Attributes:
      data: None for all devices that fsdp and tensor leave.
      fsdp, tensor: see the module.
    """

    data: Devices | None = None
    fsdp: Devices = 1
    tensor: Devices = 1

    def __post_init__(self):
        check_ranges(self)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh over the devices of all processes.

    A process that runs alone may leave devices out. Axis types are Auto: Explicit
    rejects sharded gathers.

    Args:
      config: devices along each axis.
      devices: devices to take instead, such as those that can only be compiled for.

    Raises:
      ShardingError: the mesh does not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = _shape(config, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[: math.prod(shape)])


def _shape(config: MeshConfig, have: int) -> tuple[int, int, int]:
    inner = config.fsdp * config.tensor
    data = max(1, have // inner) if config.data is None else config.data
    need = data * inner
    if need > have or (need < have and (config.data is None or jax.process_count() > 1)):
        raise ShardingError(
            f"mesh data={config.data or 'the rest'}, fsdp={config.fsdp}, tensor={config.tensor} does not fit the "
            f"{have} devices: make config.mesh.fsdp * config.mesh.tensor a divisor of {have} and leave "
            "config.mesh.data out, or start on other devices"
        )
    return data, config.fsdp, config.tensor


def fitting_mesh(config: MeshConfig) -> MeshConfig:
    """The mesh of a config, or the nearest mesh that fits the devices of all processes.

    The nearest mesh has the largest divisor of `tensor`, then of `fsdp`, that divides
    the number of devices. No result depends on the mesh.
    """
    try:
        _shape(config, jax.device_count())
    except ShardingError:
        tensor = math.gcd(config.tensor, jax.device_count())
        return MeshConfig(None, math.gcd(config.fsdp, jax.device_count() // tensor), tensor)
    return config


def check_model(mesh: Mesh, model: LlamaConfig, name: str) -> None:
    """Checks that a model can be split evenly over the mesh.

    Args:
      name: the config field of the model, for the message.

    Raises:
      ShardingError: a mesh axis does not divide a size of the model.
    """
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
    """Checks that a batch of `size` rows can be split evenly over the mesh.

    Args:
      name: the config field of the size, for the message.

    Raises:
      ShardingError: the number of slices does not divide `size`.
    """
    parts = _parts(mesh, RULES["batch"])
    if size % parts:
        raise ShardingError(
            f"{name}={size}: these rows cannot be split evenly over mesh axes data * fsdp = {parts}; use a "
            f"multiple of {parts} (such as {-(-size // parts) * parts}), or fewer devices"
        )


@contextlib.contextmanager
def logical_rules(mesh: Mesh) -> Iterator[None]:
    """Maps logical axis names of the models to axes of this mesh while the block runs.

    See `nn.with_logical_constraint`. To be used inside the function that is traced.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(cast(Any, tuple(RULES.items()))):
        yield


def sharding(mesh: Mesh, *names: str | None) -> NamedSharding:
    """The sharding of an array by its logical axis names; None is not split."""
    return NamedSharding(mesh, PartitionSpec(*(RULES.get(name) for name in names)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds in full."""
    return sharding(mesh)


def tree_shardings(tree, mesh: Mesh):
    """The sharding of every leaf of a tree by its path.

    Args:
      tree: parameters, or a tree shaped like them; arrays or shapes.

    Raises:
      ShardingError: a mesh axis does not divide an axis of a leaf, or would split a
        joined matrix (`models.unroll`).
    """

    def one(path, leaf) -> NamedSharding:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        if is_joined(where):
            _check_whole(where, leaf, mesh)
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


def _check_whole(where: str, leaf, mesh: Mesh) -> None:
    """Raises ShardingError if the mesh splits models, for a matrix that cannot be split."""
    for axis in ("fsdp", "tensor"):
        if mesh.shape[axis] > 1:
            raise ShardingError(
                f"{where} {list(leaf.shape)} joins several matrices and cannot be split over mesh axis "
                f"{axis}={mesh.shape[axis]}: a part of it would not be a part of each. Lay out the layers with "
                f"models.unroll.unroll(params, join=False), or set config.mesh.{axis}=1"
            )


def abstract_on(tree, mesh: Mesh):
    """A tree of jax.ShapeDtypeStruct: shapes, dtypes, and `tree_shardings`."""

    def one(leaf, placement):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement)

    return jax.tree.map(one, tree, tree_shardings(tree, mesh))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts a host batch on the mesh, split over its first axis.

    Args:
      batch: arrays [B, ...].

    Raises:
      ShardingError: the arrays disagree about B, or the mesh axes of "batch" do not
        divide B.
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
    """The rows of a batch that the devices of this process hold.

    Args:
      size: rows of the whole batch.

    Returns:
      row numbers, ascending; None, for all rows, if this process runs alone.
    """
    if jax.process_count() == 1:
        return None
    slices = sharding(mesh, "batch").addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[held] for held in slices]))


def shard_own_rows(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """`shard_batch` for a batch of which each process has its `own_rows` alone."""
    if jax.process_count() == 1:
        return shard_batch(batch, mesh)
    placement = sharding(mesh, "batch")
    return {name: jax.make_array_from_process_local_data(placement, value) for name, value in batch.items()}


def _parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    """How many parts these mesh axes split an axis into."""
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh.shape[name] for name in names)
