"""GPUs that are not here: their compiler runs on any CPU.

The compiler comes with JAX's plugin for CUDA. It compiles a program for a device that is
a description alone: nothing can be put on the device, and nothing runs. Kernels are not
timed there, so the compiler takes its default tiles of a product.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
from jax.experimental import topologies

from atspeed_jax.training.chips import CHIPS

INSTALL = (
    "pip install --no-deps --target=DIR jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION (VERSION: that of jax, "
    f"here {jax.__version__}), then set PYTHONPATH=DIR and JAX_PLATFORMS=cpu"
)
# What the compiler asks of a Hopper GPU beside its name, memory and bandwidth, from
# NVIDIA's tuning guide for Hopper. 132 multiprocessors are those of an SXM module.
HOPPER = """
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 }"""
GPUS = ("h100", "h200")
VERSIONS = "dnn_version_info { major: 9 minor: 10 }\nruntime_version { major: 12 minor: 8 }"


class GpuCompilerError(ValueError):
    """A GPU that cannot be compiled for."""


def has_compiler() -> bool:
    """Tells whether JAX's plugin for CUDA is installed."""
    return any(_found(f"jax_plugins.xla_cuda{version}") for version in (12, 13))


def gpu_device(chip: str) -> Any:
    """Makes one device of a kind of GPU, to compile for.

    Args:
      chip: a name in `GPUS`.

    Raises:
      GpuCompilerError: the chip is unknown, or the compiler is not installed or cannot be
        loaded.
    """
    if chip not in GPUS:
        raise GpuCompilerError(f"chip {chip!r} is none of the GPUs that can be compiled for: {', '.join(GPUS)}")
    if not has_compiler():
        raise GpuCompilerError(f"the GPU compiler is not installed: {INSTALL}")
    try:
        found = topologies.get_topology_desc(platform="cuda", target_config=description(chip), topology="1x1x1")
    except (jax.errors.JaxRuntimeError, NotImplementedError, RuntimeError) as error:
        raise GpuCompilerError(
            f"the GPU compiler cannot be loaded ({str(error).splitlines()[0]}). Expected a plugin of jax's version, "
            f"and JAX_PLATFORMS=cpu where CUDA's libraries are not installed: {INSTALL}"
        ) from error
    return found.devices[0]


def description(chip: str) -> str:
    """Describes a GPU as XLA's compiler reads it: a GpuTargetConfigProto as text."""
    facts = CHIPS[chip]
    memory = f"\n  memory_bandwidth: {facts.hbm_bytes:.0f}\n  device_memory_size: {int(facts.hbm_gib * 2**30)}"
    named = f'platform_name: "CUDA"\ndevice_description_str: "{facts.kinds[0]}"'
    return f"gpu_device_info {{{HOPPER}{memory}\n}}\n{named}\n{VERSIONS}\n"


def on(device: Any, tree: Any) -> Any:
    """Replaces the arrays of a tree by their shapes on a device."""
    place = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # no plugin is installed at all
        return False
