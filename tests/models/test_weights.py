import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weight_files import INDEX_FILE, ONE_FILE, WeightsError
from atspeed_jax.models.weights import load_weights, save_weights, their_shapes
from hf import GOLDEN, TOKENS, VARIANTS, assert_same_rungs, our_rungs
from numpy_llama import wide_params
from weight_dirs import CONFIG, TIED, problems, stored

ROOT = Path(__file__).resolve().parents[2]


def same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ladder_against_golden_files_of_transformers(variant):
    """Weights, config and every rung as transformers wrote them (tests/helpers/hf.py)."""
    directory = GOLDEN / variant
    config = read_hf_config(directory)
    assert_same_rungs(our_rungs(config, load_weights(directory, config), TOKENS), load_file(directory / "rungs"))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("llama_llama3", "llama_linear")])
def test_import_and_export_is_byte_identical(tmp_path, variant):
    directory = GOLDEN / variant
    config = read_hf_config(directory)
    save_weights(tmp_path, config, load_weights(directory, config))
    theirs, ours = load_file(directory / ONE_FILE), load_file(tmp_path / ONE_FILE)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype, name
        assert tensor.tobytes() == ours[name].tobytes(), name
    with safe_open(tmp_path / ONE_FILE, "numpy") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses a file without it


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_saved_is_loaded(tmp_path, config, dtype):
    params = wide_params(config, seed=0)
    save_weights(tmp_path, config, params, dtype=dtype)
    loaded = load_weights(tmp_path, config)
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
    same(loaded, rounded)
    again = tmp_path / "again"
    again.mkdir()
    save_weights(again, config, loaded, dtype=dtype)
    assert (again / ONE_FILE).read_bytes() == (tmp_path / ONE_FILE).read_bytes()
    narrow = load_weights(tmp_path, config, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("bfloat16")}


def test_files_of_limited_size_and_their_index(tmp_path):
    params = wide_params(CONFIG, seed=0)
    save_weights(tmp_path, CONFIG, params, file_bytes=1500)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert index["weight_map"].keys() == their_shapes(CONFIG).keys()
    assert index["metadata"]["total_size"] == sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    same(load_weights(tmp_path, CONFIG), params)


SHARDED = """
import jax, numpy as np, sys
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from pathlib import Path
from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weights import load_weights, param_shapes

directory = Path(sys.argv[1])
config = read_hf_config(directory)
mesh = jax.make_mesh((2, 2), ("one", "two"), axis_types=(AxisType.Auto,) * 2)
kernels = PartitionSpec(None, "one", "two")
places = {1: PartitionSpec("two"), 2: PartitionSpec("two", "one"), 3: kernels}
shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, places[leaf.ndim]), param_shapes(config))
sharded = load_weights(directory, config, shardings=shardings)
assert jax.tree.all(jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, sharded, shardings))
query = sharded["layers"]["attention"]["query"]["kernel"]
assert {shard.data.shape for shard in query.addressable_shards} == {(2, 12, 16)}, query.sharding
jax.tree.map(np.testing.assert_array_equal, sharded, load_weights(directory, config))
print("the parts are right")
"""


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_tokens_in_another_order_than_the_files_rows(tmp_path, config):
    """Tokens 2, 0, 1 of 11 rows, and one behind the rows of the files, which is zero."""
    params = wide_params(config, 0)
    save_weights(tmp_path, config, params)
    some = load_weights(tmp_path, config, rows=np.array([2, 0, 1, 12]))
    heads = [] if config.tied_embeddings else [(some["head"]["kernel"].T, params["head"]["kernel"].T)]
    for loaded, whole in [(some["embedding"], params["embedding"]), *heads]:
        np.testing.assert_array_equal(loaded[:3], whole[np.array([2, 0, 1])])
        np.testing.assert_array_equal(loaded[3], 0)
    same(some["layers"], load_weights(tmp_path, config)["layers"])

    order = np.random.default_rng(0).permutation(config.vocab_size)
    (tmp_path / "again").mkdir()
    save_weights(tmp_path / "again", config, load_weights(tmp_path, config, rows=order), rows=order)
    assert (tmp_path / "again" / ONE_FILE).read_bytes() == (tmp_path / ONE_FILE).read_bytes()


def test_each_device_gets_its_part():
    """On four devices, along two axes of a mesh, leaves with and without a layer axis."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHARDED, str(GOLDEN / "llama_untied")]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert "the parts are right" in done.stdout, done.stderr[-2000:]


def test_every_problem_is_in_one_error(tmp_path):
    changes = {
        "model.norm.weight": None,
        "model.layers.1.mlp.up_proj.weight": np.zeros((12, 9), np.float32),
        "model.layers.3.mlp.up_proj.weight": np.zeros((12, 8), np.float32),
        "lm_head.weight": np.zeros((11, 8), np.int8),
    }
    stored(tmp_path, **changes)
    message = problems(tmp_path)
    for part in (
        "model.norm.weight is missing",
        "model.layers.1.mlp.up_proj.weight has shape [12, 9], expected [12, 8]",
        "model.layers.3.mlp.up_proj.weight is no tensor of this model",
        "lm_head.weight is stored as I8",
    ):
        assert part in message


def test_many_problems_are_counted(tmp_path):
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / ONE_FILE)
    missing = len(their_shapes(CONFIG)) + 1
    assert f"and {missing - 20} more" in problems(tmp_path)


def test_old_rotary_buffers_are_left_out(tmp_path):
    stored(tmp_path, **{"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(1, np.float32)})
    same(load_weights(tmp_path, CONFIG), wide_params(CONFIG, seed=0))


def test_nothing_is_overwritten(tmp_path):
    save_weights(tmp_path, CONFIG, wide_params(CONFIG, seed=0))
    content = (tmp_path / ONE_FILE).read_bytes()
    with pytest.raises(WeightsError, match=f"already has {ONE_FILE}"):
        save_weights(tmp_path, TIED, wide_params(TIED, seed=1))
    assert (tmp_path / ONE_FILE).read_bytes() == content


RESIDENT = """
import sys
from pathlib import Path
import jax
from atspeed_jax.models.weights import load_weights
from atspeed_jax.utils.program_memory import peak_memory
from resident_memory import now
small, large = (Path(sys.argv[1]) / name for name in ("small", "large"))
jax.block_until_ready(load_weights(small, SMALL))  # whatever is made once
before = now()
params = jax.block_until_ready(load_weights(large, LARGE))
print(peak_memory() - before, sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


@pytest.mark.slow  # a process of its own with a file of 0.5 GB
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_loading_takes_the_parameters_and_one_tensor(tmp_path):
    large = dataclasses.replace(CONFIG, vocab_size=80_000, hidden_size=768, head_dim=192, intermediate_size=1024)
    for name, config in (("small", CONFIG), ("large", large)):
        (tmp_path / name).mkdir()
        save_weights(tmp_path / name, config, wide_params(config, seed=0))
    sizes = "from atspeed_jax.models.llama import LlamaConfig\nSMALL, LARGE = " + f"{CONFIG!r}, {large!r}"
    command = [sys.executable, "-c", sizes + RESIDENT, str(tmp_path)]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}"}
    taken, parameters = map(int, subprocess.check_output(command, env=os.environ | paths, text=True).split())
    largest = 80_000 * 768 * 4
    assert taken < parameters + 1.7 * largest, (taken, parameters)  # 0.7: programs, and what malloc keeps
