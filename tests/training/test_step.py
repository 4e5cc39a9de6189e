"""One update on the toy regression (toy.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.training import sharding
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import make_optimizer
from atspeed_jax.training.step import initializer, make_train_step
from devices import whole_mesh
from tests.training import toy


def test_without_a_moving_average_what_is_trained_is_kept():
    config = toy.toy_config(average=0.0)
    optimizer, params = make_optimizer(config.optim), toy.init_params(jax.random.key(0))
    key, batch = jax.random.key(1), toy.ToyBatches()[0]
    state = {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32), "key": key}
    grads = jax.grad(lambda p: toy.loss(p, batch, jax.random.fold_in(key, 0))[0])(params)
    expected = optax.apply_updates(params, optimizer.update(grads, state["opt_state"], params)[0])
    after, _ = make_train_step(toy.loss, config.optim, whole_mesh())(state, batch)
    assert after.keys() == {"params", "opt_state", "step", "key"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after["params"], expected)


def test_one_compilation_per_batch_shape():
    mesh = whole_mesh()
    config = toy.toy_config()
    state = initializer(lambda key: toy.init_params(key) | {"weak": jnp.full((2, 2), 0.5)}, config, mesh)()
    step = make_train_step(toy.loss, config.optim, mesh)
    for number in range(6):
        state, _ = step(state, sharding.shard_batch(toy.ToyBatches()[number], mesh))
    assert step._cache_size() == 2


def test_each_step_gets_its_own_key_and_the_donated_state_is_gone():
    mesh = whole_mesh()
    config = toy.toy_config()
    initial = initializer(toy.init_params, config, mesh)()
    root = jax.random.wrap_key_data(jnp.asarray(jax.random.key_data(initial["key"])).copy())

    def loss(params, batch, key):
        return toy.loss(params, batch, key)[0], {"draw": jax.random.uniform(key), "number": batch["step"]}

    step = make_train_step(loss, config.optim, mesh)
    state, draws = initial, []
    for number in range(3):
        state, metrics = step(state, sharding.shard_batch(toy.ToyBatches()[number], mesh))
        draws.append(float(metrics["draw"]))
        assert metrics["number"] == number
    assert draws == [float(jax.random.uniform(jax.random.fold_in(root, number))) for number in range(3)]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(initial["params"]))
    assert int(state["step"]) == 3


def updated(loss, accumulate):
    """(state, metrics) after three updates, without the toy's dropout, which each part would draw for itself."""
    mesh, config = whole_mesh(), toy.toy_config()
    state = initializer(toy.init_params, config, mesh)()
    step = make_train_step(loss, config.optim, mesh, None, accumulate)
    for number in range(3):
        state, metrics = step(state, sharding.shard_batch(toy.ToyBatches()[number], mesh))
    return state, metrics


def weighted(params, batch, key):
    """The mean error of the rows whose y is positive: parts of a batch count as many rows as they have of them."""
    counted = batch["y"] > 0
    error = (batch["x"].sum(1) * params["hidden"]["kernel"].sum() + params["out"]["kernel"].sum() - batch["y"]) ** 2
    count = counted.sum()
    return jnp.where(counted, error, 0).sum() / jnp.maximum(count, 1), {"weight": count, "share": counted.mean()}


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_batch_read_in_parts_gives_the_same_update(parts):
    (whole, told), (split, said) = updated(weighted, 1), updated(weighted, parts)
    assert "weight" not in told
    assert told.keys() == said.keys()
    for one, other in zip(jax.tree.leaves(whole["params"]), jax.tree.leaves(split["params"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert float(told["loss"]) == pytest.approx(float(said["loss"]), rel=1e-5)


def test_parts_without_a_weight_count_alike_and_draw_for_themselves():
    def loss(params, batch, key):
        return params["hidden"]["bias"].sum() * 0 + batch["y"].mean(), {"draw": jax.random.uniform(key)}

    state, metrics = updated(loss, 2)
    assert float(metrics["loss"]) == pytest.approx(toy.ToyBatches()[2]["y"].mean(), rel=1e-5)
    key = jax.random.fold_in(state["key"], 2)
    draws = [float(jax.random.uniform(jax.random.fold_in(key, part))) for part in range(2)]
    assert float(metrics["draw"]) == pytest.approx(np.mean(draws))
    assert draws[0] != draws[1]


def test_the_losses_of_next_items_read_in_parts_are_those_of_the_whole():
    model = LlamaConfig(14, 16, 32, 1, 2, 2, 8, 1e4, 1e-6, True, 0.0, "float32", False)
    tokens = np.random.default_rng(0).integers(2, 14, (8, 7)).astype(np.int32)
    tokens[:5, :4] = 0
    batch = {"tokens": tokens, "valid": tokens > 0, "predict": tokens > 1}
    mesh, optim = whole_mesh(), toy.toy_config(average=0.0).optim
    found = []
    for parts in (1, 4):
        state = initializer(lambda key: init_params(model, key), toy.toy_config(average=0.0), mesh)()
        step = make_train_step(training_loss(model, 3, 0.0), optim, mesh, None, parts)
        found.append(step(state, sharding.shard_batch(batch, mesh))[1])
    assert float(found[0]["loss"]) == pytest.approx(float(found[1]["loss"]), rel=1e-6)
    assert float(found[0]["grad_norm"]) == pytest.approx(float(found[1]["grad_norm"]), rel=1e-5)
