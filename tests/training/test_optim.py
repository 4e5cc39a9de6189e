import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.training import optim
from atspeed_jax.utils.ranges import RangeError

CONFIG = optim.OptimConfig(
    learning_rate=0.1, warmup_steps=4, weight_decay=0.5, clip_norm=2.0, b1=0.9, b2=0.99, average=0.9, steps=20
)


def test_the_learning_rate_rises_linearly_to_the_peak_then_falls_as_a_cosine_to_zero():
    schedule = optim.learning_rate_schedule(CONFIG)
    warm = [0.02, 0.04, 0.06, 0.08, 0.1]
    np.testing.assert_allclose([schedule(n) for n in range(5)], warm, rtol=1e-6)
    cosine = [0.1 * 0.5 * (1 + math.cos(math.pi * (n - 4) / 16)) for n in range(5, 21)]
    np.testing.assert_allclose([schedule(n) for n in range(5, 21)], cosine, atol=1e-7)


def test_without_warm_up_the_first_update_has_the_peak():
    schedule = optim.learning_rate_schedule(dataclasses.replace(CONFIG, warmup_steps=0))
    assert schedule(0) == pytest.approx(0.1)


def test_decay_is_for_matrices_only_also_when_layers_are_stacked():
    params = {
        "embed": {"embedding": jnp.zeros((9, 4))},
        "layers": {
            "attention_norm": {"scale": jnp.zeros((2, 4))},
            "RMSNorm_0": {"scale": jnp.zeros((2, 4))},
            "attention": {"q": {"kernel": jnp.zeros((2, 4, 4)), "bias": jnp.zeros((2, 4))}},
        },
        "final_norm": jnp.zeros(4),
        "gain": jnp.zeros(4),
    }
    assert optim.decay_mask(params) == {
        "embed": {"embedding": True},
        "layers": {
            "attention_norm": {"scale": False},
            "RMSNorm_0": {"scale": False},
            "attention": {"q": {"kernel": True, "bias": False}},
        },
        "final_norm": False,
        "gain": False,
    }


def test_updates_equal_adamw_written_out():
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    optimizer = optim.make_optimizer(CONFIG)
    state = optimizer.init(params)
    first, second = np.zeros(2), np.zeros(2)  # one entry for the kernel, one for the bias: all their elements are alike
    value = np.array([3.0, 3.0])
    for count in range(3):
        grads = {"kernel": jnp.full((2, 2), 4.0 + count), "bias": jnp.full(2, 1.0)}
        updates, state = optimizer.update(grads, state, params)
        params = {name: params[name] + updates[name] for name in params}
        g = np.array([4.0 + count, 1.0])
        g = g * min(1.0, 2.0 / math.sqrt(4 * g[0] ** 2 + 2 * g[1] ** 2))
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
        step = (first / (1 - 0.9 ** (count + 1))) / (np.sqrt(second / (1 - 0.99 ** (count + 1))) + 1e-8)
        value = value - [0.02, 0.04, 0.06][count] * (step + 0.5 * value * [1, 0])
        np.testing.assert_allclose(params["kernel"], np.full((2, 2), value[0]), rtol=1e-5)
        np.testing.assert_allclose(params["bias"], np.full(2, value[1]), rtol=1e-5)


def test_the_moving_average_forgets_the_first_parameters_then_decays_as_told():
    average = {"w": jnp.full(2, 100.0)}
    expected = 100.0
    for step in range(30):
        average = optim.moving_average(average, {"w": jnp.full(2, float(step))}, step, 0.6)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        np.testing.assert_allclose(average["w"], [expected, expected], rtol=1e-5)
    assert expected < 29  # and not the first value, 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("warmup_steps", -1),
        ("weight_decay", -0.1),
        ("clip_norm", 0.0),
        ("b1", 1.0),
        ("b2", -0.5),
        ("average", 1.0),
        ("steps", 0),
    ],
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(RangeError, match=f"^{name}={value}: expected a "):
        dataclasses.replace(CONFIG, **{name: value})


def test_a_warm_up_as_long_as_the_schedule_is_refused():
    with pytest.raises(optim.OptimConfigError, match=r"OptimConfig\.warmup_steps = 20, expected less than steps = 20"):
        dataclasses.replace(CONFIG, warmup_steps=20)
