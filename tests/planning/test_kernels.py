import dataclasses

import pytest

from atspeed_jax.models.wide_shapes import widened_config
from atspeed_jax.planning import kernels
from atspeed_jax.planning.gpu import gpu_device
from atspeed_jax.planning.hlo import Kernels
from atspeed_jax.planning.kernels import SIZES, Counted, Sizes, calls, count_call, count_decode
from gpu_compiler import needs_gpu_compiler

SMALL = Sizes(beams=4, prompt=10, levels=3, batch=1)


def small_call(name):
    return calls(SIZES, **SMALL._asdict(), unrolled=True)[name]


@pytest.mark.parametrize("name", ["level", pytest.param("prompt and tree", marks=pytest.mark.slow)])
def test_a_layer_launches_few_kernels(name):
    """4 products with weights, 2 of attention, the rest between them.

    Of jax 0.10 on a CPU: 24. It was 38 with query, key, value, gate and up apart, slots scattered and paths gathered.
    """
    assert 6 < count_call(small_call(name)).layer.total <= 26


def test_a_whole_program_has_all_layers(monkeypatch):
    """A stand-in for the compiler: a program of 5 kernels, and 3 products and 2 others per layer."""
    line = "  %k{} = f32[4,4]{{1,0}} {}(%a, %a)\n"

    def compiled(call, device):
        names = ["copy"] * 5 + ["dot", "dot", "dot", "copy", "copy"] * call.config.layers
        body = "".join(line.format(number, name) for number, name in enumerate(names))
        return f"HloModule m\n\nENTRY %main (a: f32[4,4]) -> f32[4,4] {{\n{body}}}\n"

    monkeypatch.setattr(kernels, "_compiled", compiled)
    call = small_call("level")
    call = dataclasses.replace(call, config=dataclasses.replace(call.config, layers=7))
    assert count_call(call) == Counted(1, Kernels(3, 2), Kernels(21, 5 + 14))


@needs_gpu_compiler
@pytest.mark.parametrize(("name", "most"), [("level", 15), ("prompt and tree", 14)])
def test_a_layer_launches_few_kernels_on_a_gpu(name, most):
    """At the size of Llama 7B, since XLA splits products by their sizes."""
    config = widened_config(dataclasses.replace(SIZES, dtype="bfloat16"), "llama-7b")
    call = calls(config, beams=20, prompt=100, levels=3, batch=1, unrolled=True)[name]
    layer = count_call(call, gpu_device("h200")).layer
    assert layer.products == 6
    assert 0 < layer.total <= most


@needs_gpu_compiler
@pytest.mark.slow
def test_whole_programs_make_the_products_of_their_calls():
    found = count_decode(SIZES, SMALL, gpu_device("h200"))
    assert [(one.calls, one.layer.products) for one in found.values()] == [(4, 24), (1, 6), (1, 6)]
