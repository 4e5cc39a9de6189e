import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from atspeed_jax.training import sharding


def test_the_mesh_has_one_auto_data_axis_over_all_devices():
    mesh = sharding.data_mesh()
    assert dict(mesh.shape) == {"data": jax.device_count()}
    assert mesh.axis_types == (AxisType.Auto,)


def test_logical_names_become_mesh_axes():
    mesh = sharding.data_mesh()
    assert sharding.sharding(mesh, "batch", None).spec == PartitionSpec("data", None)
    assert sharding.replicated(mesh).spec == PartitionSpec()
    with pytest.raises(KeyError):
        sharding.sharding(mesh, "no such axis")


def test_a_batch_is_split_over_its_first_axis_and_keeps_its_values():
    mesh = sharding.data_mesh()
    rows = 2 * jax.device_count()
    batch = {"tokens": np.arange(3 * rows, dtype=np.int32).reshape(rows, 3), "valid": np.ones(rows, bool)}
    placed = sharding.shard_batch(batch, mesh)
    for name, value in batch.items():
        assert placed[name].sharding.spec == PartitionSpec("data")
        assert placed[name].dtype == value.dtype
        np.testing.assert_array_equal(placed[name], value)


def test_abstract_like_keeps_shapes_and_dtypes():
    placement = sharding.replicated(sharding.data_mesh())
    abstract = sharding.abstract_like({"a": jnp.zeros((2, 3), jnp.bfloat16)}, placement)
    assert abstract["a"] == jax.ShapeDtypeStruct((2, 3), jnp.bfloat16, sharding=placement)


@pytest.mark.parametrize(
    "batch",
    [{"a": np.zeros((4, 2)), "b": np.zeros(3)}, {"a": np.zeros(4), "b": np.float32(1)}, {"a": np.float32(1)}, {}],
)
def test_arrays_that_disagree_about_the_rows_are_refused(batch):
    with pytest.raises(sharding.ShardingError, match=r"same first axis.*pass arrays \[B, \.\.\.\]"):
        sharding.shard_batch(batch, sharding.data_mesh())


def test_a_batch_that_four_devices_cannot_share_is_refused():
    code = (
        "import numpy as np; from atspeed_jax.training.sharding import *\n"
        "try: shard_batch({'x': np.zeros((6, 2))}, data_mesh())\n"
        "except ShardingError as error: print(error)"
    )
    root = str(Path(__file__).parents[2])
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | flags)
    assert "a batch of 6 rows cannot be split evenly over 4 devices" in run.stdout, run.stderr
    assert "a multiple of 4 (such as 8)" in run.stdout
