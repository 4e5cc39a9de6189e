"""Devices that are parts of this machine's CPU, for programs that are compiled and not run."""

import os

import jax


def use_host_devices(count: int) -> None:
    """Has JAX see `count` CPU devices and nothing else; to be called before JAX is first used.

    Programs that are not run need no optimizing.
    """
    given = os.environ.get("XLA_FLAGS", "")
    own = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{own} {given}"
    jax.config.update("jax_platforms", "cpu")  # the variable JAX_PLATFORMS was read when jax was imported
