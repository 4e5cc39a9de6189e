"""Vectors in blocks on the devices, so that distances to all codes fit in memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
_ENTRIES = 1 << 22  # of a block's distances, on one device
_MOST_ROWS = 16_384


class Points(NamedTuple):
    """Vectors in blocks; a pytree of arrays.

    Attributes:
      rows: [blocks, rows, D] float32. The rows of a block are split over the devices.
      weight: [blocks, rows] float32, 1 for a vector and 0 for padding.
    """

    rows: jax.Array
    weight: jax.Array


def data_mesh() -> Mesh:
    """Makes a mesh of all devices along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def place(vectors: np.ndarray, codes: int, mesh: Mesh) -> Points:
    """Puts vectors on the devices of a mesh.

    A block is the same set of vectors whatever the number of devices, as long as that
    number divides the rows of a block.

    Args:
      vectors: [N, D] floats, N at least 1.
      codes: of a level; the more codes, the fewer rows has a block.
      mesh: see `data_mesh`.
    """
    count, width = vectors.shape
    size = mesh.shape[AXIS]
    rows = min(_MOST_ROWS, max(_ENTRIES // codes, 256), 1 << (count - 1).bit_length())
    rows = -(-rows // size) * size
    blocks = -(-count // rows)
    padded = np.zeros((blocks * rows, width), np.float32)
    padded[:count] = vectors
    weight = (np.arange(blocks * rows) < count).astype(np.float32)
    return Points(
        jax.device_put(padded.reshape(blocks, rows, width), NamedSharding(mesh, PartitionSpec(None, AXIS, None))),
        jax.device_put(weight.reshape(blocks, rows), NamedSharding(mesh, PartitionSpec(None, AXIS))),
    )


def unblocked(values: jax.Array, count: int) -> np.ndarray:
    """Returns values [blocks, rows, ...] of the first `count` vectors on the host."""
    array = np.asarray(values)
    return array.reshape(-1, *array.shape[2:])[:count]
