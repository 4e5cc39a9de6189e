"""The TPU's compiler, for tests that need it."""

import pytest

from atspeed_jax.planning import tpu

needs_tpu_compiler = pytest.mark.skipif(
    not tpu.has_compiler(), reason="set TPU_LIBRARY_PATH to a libtpu.so, or install libtpu, to compile for TPUs"
)


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch):
    """libtpu asks no Google host which TPU this is."""
    from launch.host_devices import NO_TPU

    for name, value in NO_TPU.items():
        monkeypatch.setenv(name, value)
