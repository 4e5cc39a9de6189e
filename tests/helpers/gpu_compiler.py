"""The GPU's compiler, for tests that need it."""

import pytest

from atspeed_jax.planning import gpu

needs_gpu_compiler = pytest.mark.skipif(
    not gpu.has_compiler(), reason="install jax-cuda13-plugin of jax's version, to compile for GPUs (launch/README.md)"
)
