import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adapters import ITEMS, LORA, MODEL, TIED, case
from atspeed_jax.models.llama import forward as eager_forward
from atspeed_jax.models.lora import LoraError, init_adapter, merge_adapter, merged_config, scale_adapter
from numpy_llama import numpy_llama, wide_params

forward = jax.jit(eager_forward, static_argnums=0)
TOKENS = jnp.array([[0, 3, 17, 12, 13], [1, 15, 2, 2, 9]])
VALID = jnp.ones(TOKENS.shape, bool).at[0, 0].set(False)


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
def test_the_branch_is_the_merged_model(model):
    """Base and adapter apart, merged, and the NumPy Llama on what is merged."""
    params, adapter = case(model)
    larger, merged = merged_config(model, adapter), merge_adapter(params, adapter, LORA)
    assert larger.vocab_size == 13 + ITEMS
    assert merged["embedding"].shape == (18, 8)
    apart = forward(model, params, TOKENS, VALID, adapter=scale_adapter(adapter, LORA, model.tied_embeddings))
    whole = forward(larger, merged, TOKENS, VALID)
    assert apart.shape == (2, 5, 18)
    np.testing.assert_allclose(apart[VALID], whole[VALID], atol=1e-4)
    want = numpy_llama(larger, merged)(TOKENS[1].tolist())
    np.testing.assert_allclose(apart[1], want, atol=1e-4)
    without = forward(model, params, jnp.minimum(TOKENS, 12), VALID)
    assert np.abs(apart[1, 0, :13] - without[1, 0]).max() > 0.1  # the adapter says something


def test_a_merged_matrix_keeps_its_bias():
    model = dataclasses.replace(MODEL, model_type="qwen3", attention_bias=True)
    params, adapter = case(model)
    merged = merge_adapter(params, adapter, LORA)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    want = numpy_llama(merged_config(model, adapter), merged)(TOKENS[1].tolist())
    apart = forward(model, params, TOKENS, VALID, adapter=scale_adapter(adapter, LORA, False))
    np.testing.assert_allclose(apart[1], want, atol=1e-4)


def test_a_new_adapter_changes_nothing_but_knows_its_items():
    params = jax.tree.map(jnp.asarray, wide_params(MODEL, seed=0))
    adapter = init_adapter(MODEL, LORA, params, 4000, jax.random.key(0))
    old = jnp.minimum(TOKENS, 12)
    ours = forward(MODEL, params, old, VALID, adapter=scale_adapter(adapter, LORA, False))
    np.testing.assert_allclose(ours[..., :13][VALID], forward(MODEL, params, old, VALID)[VALID], atol=1e-5)
    for rows, known in (
        (adapter["item_embedding"], params["embedding"]),
        (adapter["item_head"].T, params["head"]["kernel"].T),
    ):
        np.testing.assert_allclose(rows.mean(0), known.mean(0), atol=0.05)
        np.testing.assert_allclose(rows.std(0), known.std(0), rtol=0.1)
    assert set(adapter["layers"]) == {"attention", "mlp"}
    assert set(adapter["layers"]["attention"]) == {"query", "value"}
    assert "item_head" not in init_adapter(TIED, LORA, case(TIED)[0], 3, jax.random.key(0))
    assert set(init_adapter(MODEL, LORA, params, 0, jax.random.key(0))) == {"layers"}


def test_only_the_adapter_gets_gradients_and_every_part_of_it():
    params, adapter = case()

    def loss(adapter):
        return jnp.sin(forward(MODEL, params, TOKENS, VALID, adapter=scale_adapter(adapter, LORA, False)))[VALID].sum()

    grads = jax.grad(loss)(adapter)
    assert all(float(jnp.abs(leaf).max()) > 1e-3 for leaf in jax.tree.leaves(grads))

    def merged_loss(adapter):
        whole = merge_adapter(params, adapter, LORA)
        return jnp.sin(forward(merged_config(MODEL, adapter), whole, TOKENS, VALID))[VALID].sum()

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), grads, jax.grad(merged_loss)(adapter))


def test_dropout_of_the_branches_only_while_training():
    params, adapter = case()
    model = dataclasses.replace(MODEL, adapter_dropout=0.5)
    read = scale_adapter(adapter, LORA, False)
    still = forward(model, params, TOKENS, VALID, adapter=read)
    np.testing.assert_array_equal(still, forward(MODEL, params, TOKENS, VALID, adapter=read))
    one, two = (forward(model, params, TOKENS, VALID, adapter=read, dropout_key=jax.random.key(n)) for n in (0, 1))
    assert not np.allclose(one[VALID], still[VALID], atol=1e-2)
    assert not np.allclose(one[VALID], two[VALID], atol=1e-2)
    base = forward(model, params, jnp.minimum(TOKENS, 12), VALID, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(base, forward(MODEL, params, jnp.minimum(TOKENS, 12), VALID))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("q_proj", "w_proj")}, "target 'w_proj' matches no module; expected some of q_proj, k_proj"),
        ({"targets": ()}, "name at least one module"),
        ({"targets": ("q_proj", "q_proj")}, "each once"),
    ],
)
def test_impossible_adapters(change, message):
    with pytest.raises(LoraError, match=message):
        dataclasses.replace(LORA, **change)
