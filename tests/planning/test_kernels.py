import pytest

from atspeed_jax.planning.kernels import SIZES, calls, kernels_per_layer


@pytest.mark.parametrize("name", ["level", pytest.param("prompt and tree", marks=pytest.mark.slow)])
def test_a_layer_launches_few_kernels(name):
    """4 products with weights, 2 of attention, the rest between them.

    Of jax 0.10 on a CPU: 24. It was 38 with query, key, value, gate and up apart, slots scattered and paths gathered.
    """
    call = calls(SIZES, beams=4, prompt=10, levels=3, batch=1, unrolled=True)[name]
    assert 6 < kernels_per_layer(call) <= 26
