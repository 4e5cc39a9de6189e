"""CPU devices for programs that are compiled and not run."""

import os

import jax

# Without these libtpu asks a Google host which TPU this is, and prints that it failed.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}


def use_host_devices(count: int) -> None:
    """Has JAX see CPU devices and nothing else. To be called before JAX is first used.

    The compiler optimizes little, since the programs are not run.

    Args:
      count: number of devices.
    """
    given = os.environ.get("XLA_FLAGS", "")
    added = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{added} {given}"
    use_cpu()


def use_cpu() -> None:
    """Has JAX run on the CPU alone, and the TPU compiler look for no TPU."""
    jax.config.update("jax_platforms", "cpu")  # the variable JAX_PLATFORMS was read when jax was imported
    for name, value in NO_TPU.items():
        os.environ.setdefault(name, value)
