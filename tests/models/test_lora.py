import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atspeed_jax.models import lora as L
from atspeed_jax.models.llama import forward as eager_forward
from bases import BASE
from numpy_llama import numpy_llama, wide_params

pytestmark = pytest.mark.usefixtures("quick_compilation")
MODEL = dataclasses.replace(
    BASE,
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=2,
    rope_theta=100.0,
    norm_eps=1e-5,
)
TIED = dataclasses.replace(MODEL, tied_embeddings=True)
LORA = L.LoraConfig(rank=3, alpha=6.0, dropout=0.0, targets=("q_proj", "v_proj", "down_proj"))
ITEMS = 5
forward = jax.jit(eager_forward, static_argnums=0)
TOKENS = jnp.array([[0, 3, 17, 12, 13], [1, 15, 2, 2, 9]])
VALID = jnp.ones(TOKENS.shape, bool).at[0, 0].set(False)


def case(model=MODEL, lora=LORA, items=ITEMS):
    """(base, adapter with every part random)."""
    params = jax.tree.map(jnp.asarray, wide_params(model, seed=0))
    adapter = L.init_adapter(model, lora, params, items, jax.random.key(1))
    leaves, tree = jax.tree.flatten(adapter)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    random = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return params, jax.tree.unflatten(tree, random)


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
def test_the_branch_is_the_merged_model(model):
    """Base and adapter apart, merged, and the NumPy Llama on what is merged."""
    params, adapter = case(model)
    larger, merged = L.merged_model(model, adapter), L.merge(params, adapter, LORA)
    assert larger.vocab_size == 13 + ITEMS
    assert merged["embedding"].shape == (18, 8)
    apart = forward(model, params, TOKENS, VALID, adapter=L.scaled(adapter, LORA, model.tied_embeddings))
    whole = forward(larger, merged, TOKENS, VALID)
    assert apart.shape == (2, 5, 18)
    np.testing.assert_allclose(apart[VALID], whole[VALID], atol=1e-4)
    want = numpy_llama(larger, merged)(TOKENS[1].tolist())
    np.testing.assert_allclose(apart[1], want, atol=1e-4)
    without = forward(model, params, jnp.minimum(TOKENS, 12), VALID)
    assert np.abs(apart[1, 0, :13] - without[1, 0]).max() > 0.1  # the adapter says something


def test_a_new_adapter_changes_nothing_but_knows_its_items():
    params = jax.tree.map(jnp.asarray, wide_params(MODEL, seed=0))
    adapter = L.init_adapter(MODEL, LORA, params, 4000, jax.random.key(0))
    old = jnp.minimum(TOKENS, 12)
    ours = forward(MODEL, params, old, VALID, adapter=L.scaled(adapter, LORA, False))
    np.testing.assert_allclose(ours[..., :13][VALID], forward(MODEL, params, old, VALID)[VALID], atol=1e-5)
    for rows, known in (
        (adapter["item_embedding"], params["embedding"]),
        (adapter["item_head"].T, params["head"]["kernel"].T),
    ):
        np.testing.assert_allclose(rows.mean(0), known.mean(0), atol=0.05)
        np.testing.assert_allclose(rows.std(0), known.std(0), rtol=0.1)
    assert set(adapter["layers"]) == {"attention", "mlp"}
    assert set(adapter["layers"]["attention"]) == {"query", "value"}
    assert "item_head" not in L.init_adapter(TIED, LORA, case(TIED)[0], 3, jax.random.key(0))
    assert set(L.init_adapter(MODEL, LORA, params, 0, jax.random.key(0))) == {"layers"}


def test_only_the_adapter_gets_gradients_and_every_part_of_it():
    params, adapter = case()

    def loss(adapter):
        return jnp.sin(forward(MODEL, params, TOKENS, VALID, adapter=L.scaled(adapter, LORA, False)))[VALID].sum()

    grads = jax.grad(loss)(adapter)
    assert all(float(jnp.abs(leaf).max()) > 1e-3 for leaf in jax.tree.leaves(grads))

    def merged_loss(adapter):
        whole = L.merge(params, adapter, LORA)
        return jnp.sin(forward(L.merged_model(MODEL, adapter), whole, TOKENS, VALID))[VALID].sum()

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), grads, jax.grad(merged_loss)(adapter))


def test_dropout_of_the_branches_only_while_training():
    params, adapter = case()
    model = dataclasses.replace(MODEL, adapter_dropout=0.5)
    read = L.scaled(adapter, LORA, False)
    still = forward(model, params, TOKENS, VALID, adapter=read)
    np.testing.assert_array_equal(still, forward(MODEL, params, TOKENS, VALID, adapter=read))
    one, two = (forward(model, params, TOKENS, VALID, adapter=read, dropout_key=jax.random.key(n)) for n in (0, 1))
    assert not np.allclose(one[VALID], still[VALID], atol=1e-2)
    assert not np.allclose(one[VALID], two[VALID], atol=1e-2)
    base = forward(model, params, jnp.minimum(TOKENS, 12), VALID, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(base, forward(MODEL, params, jnp.minimum(TOKENS, 12), VALID))


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("items", [0, ITEMS])
def test_what_is_saved_is_loaded(tmp_path, model, items):
    params, adapter = case(model, items=items)
    L.save_adapter(tmp_path / "a", model, LORA, params, adapter, "some/base")
    lora, loaded = L.load_adapter(tmp_path / "a", model, params)
    assert lora == LORA
    assert jax.tree.structure(loaded) == jax.tree.structure(adapter)
    jax.tree.map(np.testing.assert_array_equal, loaded, adapter)
    fields = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == "some/base"
    assert fields["peft_type"] == "LORA"
    with pytest.raises(L.LoraError, match=r"already has adapter_config\.json"):
        L.save_adapter(tmp_path / "a", model, LORA, params, adapter, "some/base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("q_proj", "w_proj")}, "target 'w_proj' matches no module; expected some of q_proj, k_proj"),
        ({"targets": ()}, "name at least one module"),
        ({"targets": ("q_proj", "q_proj")}, "each once"),
    ],
)
def test_impossible_adapters(change, message):
    with pytest.raises(L.LoraError, match=message):
        dataclasses.replace(LORA, **change)


@pytest.fixture
def saved(tmp_path):
    params, adapter = case()
    L.save_adapter(tmp_path, MODEL, LORA, params, adapter, "base")
    return tmp_path, params


def refused(directory, params, model=MODEL):
    with pytest.raises(L.LoraError) as error:
        L.load_adapter(directory, model, params)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"lora_bias": True, "use_qalora": False}, "is not supported: lora_bias=True"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens=[1, 2]"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config={'top_k': 2}"),
        ({"target_modules": ["w_proj"]}, "known modules are q_proj"),
        ({"r": "x"}, "rank='x': expected a whole number"),
        ({"r": 0}, "rank=0: expected a whole number, at least 1"),
        ({"lora_alpha": None}, "lacks or spoils a field"),
    ],
)
def test_configs_of_other_adapters(saved, change, message):
    directory, params = saved
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in refused(directory, params)


def test_an_adapter_of_another_base(saved):
    directory, _params = saved
    other = jax.tree.map(jnp.asarray, wide_params(MODEL, seed=9))
    assert "does not begin with the base's 13 rows" in refused(directory, other)
    wide = dataclasses.replace(MODEL, intermediate_size=16)
    message = refused(directory, jax.tree.map(jnp.asarray, wide_params(wide, seed=0)), wide)
    assert "mlp.down_proj.lora_A.weight has shape [3, 12], expected [3, 16]: an adapter of another base?" in message
    deeper = dataclasses.replace(MODEL, layers=3)
    message = refused(directory, jax.tree.map(jnp.asarray, wide_params(deeper, seed=0)), deeper)
    assert "layers.2.self_attn.q_proj.lora_A.weight is missing" in message


@pytest.mark.parametrize("other", [False, True])
def test_a_tied_head_may_be_stored_twice(tmp_path, other):
    """As PEFT does with an enlarged vocabulary; another one than the embedding is not this model's."""
    params, adapter = case(TIED)
    L.save_adapter(tmp_path, TIED, LORA, params, adapter, "base")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    head = tensors["base_model.model.model.embed_tokens.weight"] + float(other)
    save_file(tensors | {"base_model.model.lm_head.weight": head}, path)
    if other:
        assert "lm_head.weight is not base_model.model.model.embed_tokens.weight" in refused(tmp_path, params, TIED)
    else:
        jax.tree.map(np.testing.assert_array_equal, L.load_adapter(tmp_path, TIED, params)[1], adapter)


def test_tensors_that_do_not_belong_and_files_that_are_not_whole(saved):
    directory, params = saved
    path = directory / "adapter_model.safetensors"
    save_file(load_file(path) | {"extra": np.zeros(1, np.float32)}, path)
    assert "extra is no tensor of this adapter" in refused(directory, params)
    path.write_bytes(path.read_bytes()[:-4])
    assert "damaged or cut off" in refused(directory, params)
    path.unlink()
    assert "there is no" in refused(directory, params)
    (directory / "adapter_config.json").write_text("{")
    assert "cannot be read" in refused(directory, params)
    (directory / "adapter_config.json").write_text("[]")
    assert "adapter_config.json holds a list, expected the JSON object" in refused(directory, params)
