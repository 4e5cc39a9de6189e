"""Where a device's time goes: what counts as a kernel in the traces of a GPU, a TPU and a CPU, and the sums."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.utils.device_time import DeviceTime, Kernel, in_words, kernels_of, traced


def plane(name, **lines):
    """A plane of a trace, with the events of its lines by the line's name."""
    return SimpleNamespace(
        name=name, lines=[SimpleNamespace(name=line, events=events) for line, events in lines.items()]
    )


def event(name, start=0.0, duration=1.0, **stats):
    return SimpleNamespace(name=name, start_ns=start, duration_ns=duration, stats=list(stats.items()))


def names(*planes):
    return [kernel.name for kernel in kernels_of(planes)]


def test_kernels_of_a_gpu_are_those_of_its_streams():
    gpu = plane("/device:GPU:0", **{"Stream #13(Compute)": [event("gemm")], "XLA Modules": [event("jit_f")]})
    assert names(gpu, plane("/host:CPU", python=[event("call")])) == ["gemm"]


def test_kernels_of_a_tpu_are_its_operations():
    assert names(plane("/device:TPU:0", **{"XLA Ops": [event("fusion.3")], "Steps": [event("1")]})) == ["fusion.3"]


def test_kernels_of_a_cpu_name_an_instruction():
    assert names(plane("/host:CPU", thread=[event("dot.1", hlo_op="dot.1"), event("wait")])) == ["dot.1"]


def test_times_are_summed_per_call_and_overlap_counts_once():
    kernels = [
        Kernel("nvjet_128x64", 3e6, 2e6),
        Kernel("loop_fusion_12", 0.0, 2e6),
        Kernel("loop_fusion_7", 1e6, 1e6),
        Kernel("MemcpyD2D", 8e6, 2e6),
    ]
    found = DeviceTime.of(kernels, calls=2)
    assert (found.busy_ms, found.span_ms, found.kernels) == (3.0, 5.0, 2.0)
    assert found.kinds == {"products": 1.0, "copies": 1.0, "others": 1.5}
    assert found.top[0] == ("loop_fusion", 1.5, 1.0)
    words = in_words({"busy_ms": 3.0, "span_ms": 5.0, "kernels": 2.0, "kinds": found.kinds})
    assert words == "busy 3.000 of 5.000 ms with 2 kernels (products 1.000, copies 1.000, others 1.500)"


def test_a_trace_without_a_kernel_says_nothing():
    assert DeviceTime.of([], calls=1) is None


def test_a_product_is_traced():
    matrix = jnp.ones((256, 256))
    product = jax.jit(jnp.matmul)
    found = traced(lambda: product(matrix, matrix), calls=2)
    assert found.kernels == pytest.approx(1, abs=0.6)
    assert 0 < found.busy_ms <= found.span_ms
