import pytest

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.training.chips import CHIPS, ChipError, chip_of, chip_of_kind, roofline


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5p chip", "v5p"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
    ],
)
def test_a_device_is_known_by_the_longest_name_that_fits(kind, name):
    assert chip_of_kind(kind) is CHIPS[name] is chip_of(name)


@pytest.mark.parametrize(
    ("chip", "dtype", "precision", "rate"),
    [
        ("v5e", "bfloat16", "highest", 197e12),
        ("v5e", "float32", "highest", 197e12 / 6),
        ("v5e", "float32", "high", 197e12 / 3),
        ("v5e", "float32", "default", 197e12),
        ("h100", "float32", "highest", 67e12),
        ("h100", "float32", "default", 494e12),
        ("h100", "float64", "default", 67e12),
    ],
)
def test_the_rate_of_products_depends_on_dtype_and_precision(chip, dtype, precision, rate):
    model = LlamaConfig(10, 8, 16, 3, 2, 1, 4, 1e4, 1e-6, False, 0.0, dtype, False, precision=precision)
    assert CHIPS[chip].rate(model) == rate


def test_what_is_in_no_table():
    assert chip_of_kind("cpu") is None
    with pytest.raises(ChipError, match="chip 'v7' is unknown; expected one of v4, v5e"):
        chip_of("v7")


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [((394e12, 819e9, 200e9), 2, "FLOPs"), ((1, 3 * 819e9, 200e9), 3, "HBM"), ((1, 1, 50e9), 0.25, "links")],
)
def test_the_roofline_is_the_slowest_of_three(work, seconds, bound):
    names = ("flops", "hbm_bytes", "received")
    assert roofline(CHIPS["v5e"], **dict(zip(names, work, strict=True))) == (seconds, bound)
