import importlib.util
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.planning import gpu
from atspeed_jax.planning.gpu import GPUS, GpuCompilerError, gpu_device, on
from atspeed_jax.planning.hlo import Kernels, read_program
from atspeed_jax.training.chips import CHIPS
from gpu_compiler import needs_gpu_compiler


def test_a_chip_that_is_no_gpu():
    with pytest.raises(GpuCompilerError, match="chip 'v5e' is none of the GPUs that can be compiled for: h100, h200"):
        gpu_device("v5e")


@pytest.mark.parametrize("installed", [None, "jax_plugins"])
def test_without_the_compiler_the_error_says_what_to_install(monkeypatch, installed):
    """Some other plugin of JAX may be installed, such as one for TPUs."""

    def find(name):
        if installed is None:
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    version = re.escape(jax.__version__)
    what = rf"not installed: pip install .*=DIR jax-cuda13-plugin==VERSION .*here {version}.*JAX_PLATFORMS=cpu"
    with pytest.raises(GpuCompilerError, match=what):
        gpu_device("h100")


def test_a_compiler_that_cannot_be_loaded_is_an_error_that_says_why(monkeypatch):
    def refuse(**how):
        raise NotImplementedError("topology not implemented for cuda\nand more")

    monkeypatch.setattr(gpu, "has_compiler", lambda: True)
    monkeypatch.setattr(gpu.topologies, "get_topology_desc", refuse)
    with pytest.raises(
        GpuCompilerError, match=r"cannot be loaded \(topology not implemented for cuda\)\. Expected a plugin of jax's"
    ):
        gpu_device("h100")


def test_the_compiler_is_given_the_chip_of_the_table(monkeypatch):
    given = {}

    def describe(**how):
        given.update(how)
        return SimpleNamespace(devices=["the device"])

    monkeypatch.setattr(gpu, "has_compiler", lambda: True)
    monkeypatch.setattr(gpu.topologies, "get_topology_desc", describe)
    assert gpu_device("h200") == "the device"
    assert (given["platform"], given["topology"]) == ("cuda", "1x1x1")
    assert "memory_bandwidth: 4800000000000\n" in given["target_config"]
    assert 'device_description_str: "NVIDIA H200"' in given["target_config"]


@needs_gpu_compiler
@pytest.mark.parametrize("chip", GPUS)
def test_a_product_is_compiled_for_a_gpu(chip):
    device = gpu_device(chip)
    assert device.device_kind.startswith(CHIPS[chip].kinds)
    shapes = on(device, [jnp.zeros((8, 256), jnp.bfloat16), jnp.zeros((256, 512), jnp.bfloat16)])
    program = read_program(jax.jit(lambda x, w: jax.nn.softmax(x @ w, -1)).lower(*shapes).compile().as_text())
    assert program.kernels() == Kernels(products=1, others=1)
