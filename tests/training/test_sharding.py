import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.training import sharding
from atspeed_jax.training.optim import OptimConfig, make_optimizer
from atspeed_jax.training.sharding import MeshConfig, ShardingError
from devices import report_of, whole_mesh
from eight_devices import gathered_sizes

MODEL = LlamaConfig(24, 16, 32, 2, 4, 2, 4, 1e4, 1e-6, False, 0.0, "float32", False)


class MeshOf(dict):
    """The sizes of a mesh that this machine need not have."""

    @property
    def shape(self):
        return self


def test_the_mesh_has_three_auto_axes_and_data_is_what_is_left():
    mesh = whole_mesh()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert sharding.make_mesh(MeshConfig(data=1)).size == 1


def test_a_mesh_larger_than_the_devices_is_refused():
    have = jax.device_count()
    for config in (MeshConfig(fsdp=have + 1), MeshConfig(data=have + 1), MeshConfig(data=2, tensor=have)):
        with pytest.raises(ShardingError, match=f"fsdp={config.fsdp}.*the {have} devices: make config.mesh"):
            sharding.make_mesh(config)


@pytest.mark.parametrize(
    ("config", "devices", "expected"),
    [
        (MeshConfig(fsdp=2, tensor=2), 1, MeshConfig()),
        (MeshConfig(fsdp=2, tensor=2), 2, MeshConfig(tensor=2)),
        (MeshConfig(fsdp=2, tensor=2), 8, MeshConfig(fsdp=2, tensor=2)),
        (MeshConfig(fsdp=2, tensor=2), 6, MeshConfig(tensor=2)),
        (MeshConfig(fsdp=4, tensor=2), 12, MeshConfig(fsdp=2, tensor=2)),
        (MeshConfig(data=8), 3, MeshConfig()),
        (MeshConfig(data=2), 3, MeshConfig(data=2)),
    ],
)
def test_the_mesh_nearest_to_one_that_does_not_fit(monkeypatch, config, devices, expected):
    monkeypatch.setattr(sharding.jax, "device_count", lambda: devices)
    assert sharding.fitting_mesh(config) == expected


def test_logical_names_become_mesh_axes():
    mesh = whole_mesh()
    assert sharding.sharding(mesh, "batch", None).spec == PartitionSpec(("data", "fsdp"), None)
    assert sharding.replicated(mesh).spec == PartitionSpec()
    assert sharding.sharding(mesh, "layers", "embed", "heads").spec == PartitionSpec(None, "fsdp", "tensor")


def test_every_matrix_of_a_training_state_is_split_over_both_model_axes():
    params = param_shapes(MODEL)
    optim = OptimConfig(1e-3, 0, 0.1, 1.0, 0.9, 0.99, 0.0, 9)
    state = {"params": params, "opt_state": jax.eval_shape(make_optimizer(optim).init, params)}
    found = jax.tree_util.tree_leaves_with_path(sharding.tree_shardings(state, whole_mesh()))
    specs = {jax.tree_util.keystr(path, simple=True, separator="/"): placement.spec for path, placement in found}
    wide = {name for name, spec in specs.items() if {"fsdp", "tensor"} <= set(spec)}
    matrices = {name for name in specs if name.endswith(("kernel", "embedding"))}
    assert wide == matrices
    assert len(matrices) == 3 * 9
    assert specs["params/layers/mlp/down/kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert specs["params/norm/scale"] == PartitionSpec()


def test_an_adapter_is_split_as_what_it_reads_and_writes():
    shapes = {"a": jnp.zeros((2, 16, 3)), "b": jnp.zeros((2, 3, 32))}
    tree = {"layers": {"mlp": {"gate": shapes}}, "item_embedding": jnp.zeros((5, 16))}
    found = sharding.tree_shardings(tree, whole_mesh())
    gate = found["layers"]["mlp"]["gate"]
    assert (gate["a"].spec, gate["b"].spec) == (PartitionSpec(None, "fsdp", None), PartitionSpec(None, None, "tensor"))
    assert found["item_embedding"].spec == PartitionSpec(None, "fsdp")


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ({"fsdp": 3, "tensor": 1}, r"config\.target\.hidden_size=16 .* mesh axis fsdp=3: set config\.mesh\.fsdp to"),
        ({"fsdp": 1, "tensor": 8}, r"config\.target\.heads=4 .* tensor=8: .* a divisor of 4, such as 4"),
        ({"fsdp": 1, "tensor": 4}, r"config\.target\.kv_heads=2 .* tensor=4: .* a divisor of 2, such as 2"),
    ],
)
def test_a_width_that_does_not_divide_is_refused_with_its_axis(mesh, message):
    with pytest.raises(ShardingError, match=message):
        sharding.check_model(MeshOf(data=1, **mesh), MODEL, "config.target")


def test_widths_that_divide_are_fine():
    sharding.check_model(MeshOf(data=5, fsdp=8, tensor=2), MODEL, "config.target")


def of_path(path, *shape):
    """A tree with one array under this path."""
    tree = jnp.zeros(shape)
    for name in reversed(path.split("/")):
        tree = {name: tree}
    return tree


def test_an_array_that_does_not_divide_is_named_with_its_axis():
    message = (
        r"axis 2 \(mlp\) of layers/mlp/gate/kernel \[2, 16, 30\] cannot be split evenly over mesh axis tensor=4: set "
        r"config\.mesh\.tensor to a divisor of 30"
    )
    with pytest.raises(ShardingError, match=message):
        sharding.tree_shardings(of_path("layers/mlp/gate/kernel", 2, 16, 30), MeshOf(data=1, fsdp=1, tensor=4))


@pytest.mark.parametrize(("axis", "matrix"), [("tensor", "attention/query_key_value"), ("fsdp", "mlp/gate_up")])
def test_a_joined_matrix_is_refused_where_a_mesh_would_split_it(axis, matrix):
    mesh = MeshOf({"data": 2, "fsdp": 1, "tensor": 1} | {axis: 4})
    message = (
        rf"layers_0/{matrix}/kernel \[16, 48\] joins several matrices .* mesh axis {axis}=4: .*join=False\), or set "
        rf"config\.mesh\.{axis}=1"
    )
    with pytest.raises(ShardingError, match=message):
        sharding.tree_shardings(of_path(f"layers_0/{matrix}/kernel", 16, 48), mesh)
    whole = sharding.tree_shardings(of_path(f"layers_0/{matrix}/kernel", 16, 48), whole_mesh())
    assert jax.tree.leaves(whole)[0].spec == PartitionSpec()


def test_a_batch_is_split_over_its_first_axis_and_keeps_its_values():
    mesh = whole_mesh()
    rows = 2 * jax.device_count()
    batch = {"tokens": np.arange(3 * rows, dtype=np.int32).reshape(rows, 3), "valid": np.ones(rows, bool)}
    placed = sharding.shard_batch(batch, mesh)
    for name, value in batch.items():
        assert placed[name].sharding.spec == PartitionSpec(("data", "fsdp"))
        assert placed[name].dtype == value.dtype
        np.testing.assert_array_equal(placed[name], value)


def test_abstract_on_keeps_shapes_and_dtypes():
    abstract = sharding.abstract_on({"a": jnp.zeros((2, 3), jnp.bfloat16)}, whole_mesh())
    assert abstract["a"] == jax.ShapeDtypeStruct((2, 3), jnp.bfloat16, sharding=sharding.replicated(whole_mesh()))


@pytest.mark.parametrize(
    "batch",
    [{"a": np.zeros((4, 2)), "b": np.zeros(3)}, {"a": np.zeros(4), "b": np.float32(1)}, {"a": np.float32(1)}, {}],
)
def test_arrays_that_disagree_about_the_rows_are_refused(batch):
    with pytest.raises(ShardingError, match=r"same first axis.*pass arrays \[B, \.\.\.\]"):
        sharding.shard_batch(batch, whole_mesh())


def test_a_batch_that_the_devices_cannot_share_is_refused():
    message = r"config\.teacher\.batch_size=6: .* data \* fsdp = 4; use a multiple of 4 \(such as 8\)"
    with pytest.raises(ShardingError, match=message):
        sharding.check_batch(MeshOf(data=2, fsdp=2, tensor=3), 6, "config.teacher.batch_size")


def check_meshes(report):
    """Training and decoding on meshes are those of one device; ALGORITHM.md section 5 says what equal lists are."""
    for name, found in report["meshes"].items():
        assert found["losses"] < 1e-5, name
        assert found["params"] < 1e-5, name
        assert found["last_loss"] < 0.9 * found["first_loss"]
        assert all(found["same_ids"]), name
        assert found["scores"] < 1e-4, name
        assert all(found["same_calls"]), name
        assert len(found["calls"]) > 1, name
        assert not found["host"]
        # The weights of a layer are gathered when their turn comes, never all layers at once.
        assert max(found["gathered"], default=0) < report["largest_stacked"], name


def test_on_eight_devices_as_on_one():
    report = report_of("eight_devices.py", 8, "brief", "mixed")
    check_meshes(report)
    assert report["meshes"]["mixed"]["part_of_kernel"] == 1 / 4
    assert report["meshes"]["mixed"]["gathered"]
    assert not report["meshes"]["one"]["gathered"]


@pytest.mark.slow
def test_every_axis_of_a_mesh():
    report = report_of("eight_devices.py", 8, "data", "fsdp", "tensor")
    check_meshes(report)
    parts = {name: found["part_of_kernel"] for name, found in report["meshes"].items()}
    assert parts == {"one": 1, "data": 1, "fsdp": 1 / 8, "tensor": 1 / 8}
    assert report["meshes"]["fsdp"]["gathered"]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "mesh"), [("llama", "mixed"), ("qwen3", "split")])
def test_adapter_teacher_and_alignment_on_eight_devices_as_on_one(model_type, mesh):
    """A Qwen3 with biases and normed heads has every parameter that a model may have."""
    report = report_of("eight_devices_aligned.py", 8, model_type, mesh)
    assert report["same_beams"]
    assert report["thoughts"] < 1e-4
    for found in (report["adapter"], report["aligned"]):
        assert found["losses"] < 1e-5
        assert found["params"] < 1e-5
        assert found["last_loss"] < found["first_loss"]
        assert found["part"] < 1


def test_a_text_with_gathers_is_read():
    text = "%a = f32[3,64,8]{2,1,0} all-gather(%b), dims\n %c = (f32[4]{0}, f32[8]{0}) tuple(%d)\n"
    assert gathered_sizes(text) == [1536]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_number_of_devices_and_another_mesh(tmp_path):
    alone = report_of("resharded.py", 1, str(tmp_path / "alone"), "1", "1", "-1")
    with pytest.raises(AssertionError):
        report_of("resharded.py", 4, str(tmp_path / "run"), "4", "1", "7")
    again = report_of("resharded.py", 2, str(tmp_path / "run"), "1", "2", "-1")
    assert alone["first"] == 0
    assert again["part_of_kernel"] == 1 / 2
    assert again["first"] in (3, 6)  # the save of step 6 may have been under way
    assert again["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert len(alone["losses"]) == 12
    assert again["sums"] == pytest.approx(alone["sums"], rel=1e-5)
