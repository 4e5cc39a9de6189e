"""CPU devices for programs that are compiled and not run."""

import os

import jax


def use_host_devices(count: int) -> None:
    """Has JAX see CPU devices and nothing else. To be called before JAX is first used.

    The compiler optimizes little, since the programs are not run.

    Args:
      count: number of devices.
    """
    given = os.environ.get("XLA_FLAGS", "")
    added = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{added} {given}"
    jax.config.update("jax_platforms", "cpu")  # the variable JAX_PLATFORMS was read when jax was imported
