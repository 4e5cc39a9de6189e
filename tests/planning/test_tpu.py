import dataclasses

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.planning import tpu
from atspeed_jax.planning.plan import plan, table
from atspeed_jax.planning.tpu import SLICES, TpuCompilerError, padding, seconds, tpu_devices
from atspeed_jax.training.chips import CHIPS
from atspeed_jax.training.sharding import MeshConfig, ShardingError
from small import changed
from tpu_compiler import needs_tpu_compiler, no_tpu  # noqa: F401 (a fixture for all tests)

CATALOG = Catalog.random(40, (4,) * 3)
SLICE = MeshConfig(2, 2, 2)


@pytest.mark.parametrize(
    ("chip", "count", "message"),
    [
        ("h100", 1, "chip 'h100' is none of the TPUs that can be compiled for: v5e, v5p, v6e"),
        ("v5e", 3, "there is no v5e slice of 3 devices; expected one of 1, 4, 8, 16"),
    ],
)
def test_a_slice_that_does_not_exist(chip, count, message):
    with pytest.raises(TpuCompilerError, match=message):
        tpu_devices(chip, count)


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TpuCompilerError, match=r"pip install .* libtpu .* set TPU_LIBRARY_PATH=DIR/libtpu/libtpu\.so"):
        tpu_devices("v5e", 1)


def test_a_library_that_is_named_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    assert not tpu.has_compiler()
    (tmp_path / "libtpu.so").touch()
    assert tpu.has_compiler()


@needs_tpu_compiler
@pytest.mark.parametrize("chip", SLICES)
def test_every_slice_has_as_many_devices_as_it_says(chip):
    for count in SLICES[chip]:
        devices = tpu_devices(chip, count)
        assert len(devices) == count
        assert devices[0].device_kind.startswith(CHIPS[chip].kinds)


def on(device, *shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.sharding.SingleDeviceSharding(device))


@needs_tpu_compiler
def test_time_and_padding_of_a_product():
    device, chip = tpu_devices("v5e", 1)[0], CHIPS["v5e"]
    small = jax.jit(jnp.matmul).lower(on(device, 16, 1024), on(device, 1024, 4096))
    large = jax.jit(jnp.matmul).lower(on(device, 4096, 1024), on(device, 1024, 4096))
    assert seconds(small, chip) == pytest.approx(2 * 1024 * 4096 / chip.hbm_bytes, rel=0.3)
    assert seconds(large, chip) == pytest.approx(2 * 1024 * 4096**2 / chip.flops, rel=0.3)
    narrow = jax.jit(jnp.sum).lower(on(device, 1000, 3, dtype=jnp.float32))
    assert padding(small, small.compile()) == 0
    assert padding(narrow, narrow.compile()) > 0


def test_an_estimate_below_the_bandwidth_is_refused():
    class Lowered:
        def compile(self, compiler_options):
            return self

        def cost_analysis(self):
            return {"optimal_seconds": -0.9, "bytes accessed": 1e9}

    with pytest.raises(TpuCompilerError, match=r"estimates -0\.9 s .* 1e\+09 bytes"):
        seconds(Lowered(), CHIPS["v5e"])


def check(row):
    """What holds of every step that is compiled for a TPU."""
    assert row["temporaries_gib"] > 0
    assert row["padding_gib"] >= 0
    at_rest = row["parameters_gib"] + row["optimizer_gib"] + row["other_gib"]
    assert row["peak_gib_per_device"] >= at_rest + row["temporaries_gib"] + row["padding_gib"]
    assert "flops" not in row
    assert row["roofline_seconds"] > 0
    assert {line[0]: line[1] for line in table([row]).rows}["TFLOPs as compiled"] == "–"


def on_slice(config):
    """The config on a slice of 8, with heads that two devices share."""
    config = changed(changed(config, "target.kv_heads", 2), "draft.kv_heads", 2)
    return dataclasses.replace(config, mesh=SLICE)


@needs_tpu_compiler
def test_training_compiles_for_one_chip(small_config):
    (row,) = plan(small_config, CATALOG, CHIPS["v5e"], steps=("train",), tpus=tpu_devices("v5e", 1))
    check(row)
    assert row["devices"] == 1


@needs_tpu_compiler
@pytest.mark.slow
@pytest.mark.parametrize("chip", SLICES)
def test_all_steps_compile_for_one_chip_and_for_a_slice(small_config, chip):
    steps = ("train", "align", "decode")
    for config, count in ((small_config, 1), (on_slice(small_config), 8)):
        for row in plan(config, CATALOG, CHIPS[chip], steps=steps, tpus=tpu_devices(chip, count)):
            check(row)
            assert row["devices"] == count


@needs_tpu_compiler
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("draft.kv_heads", 1, "config.draft.kv_heads=1 cannot be split evenly over mesh axis tensor=2"),
        ("train_target.batch_size", 30, "config.train_target.batch_size=30"),
        ("mesh", MeshConfig(None, 3, 1), "does not fit the 8 devices"),
    ],
)
def test_a_slice_that_does_not_divide_is_refused(small_config, path, value, message):
    config = on_slice(small_config)
    config = dataclasses.replace(config, mesh=value) if path == "mesh" else changed(config, path, value)
    with pytest.raises(ShardingError, match=message):
        plan(config, CATALOG, CHIPS["v5e"], steps=("train",), tpus=tpu_devices("v5e", 8))
