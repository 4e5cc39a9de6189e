import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.rotary import RopeScalingConfig, rotary_angles, rotate
from numpy_llama import slowed

POSITIONS = jnp.array([[0, 1, 7, 300]])


def test_a_turn_keeps_lengths_and_depends_on_distances_alone():
    rng = np.random.default_rng(0)
    query, key = jnp.asarray(rng.normal(size=(2, 1, 1, 2, 8)), jnp.float32)

    def product(first, second):
        turned = [
            rotate(x, *rotary_angles(jnp.array([[at]]), 8, 100.0, None, jnp.float32))
            for x, at in ((query, first), (key, second))
        ]
        return (turned[0] * turned[1]).sum(-1)

    np.testing.assert_allclose(product(9, 4), product(15, 10), atol=1e-5)
    assert not np.allclose(product(9, 4), product(9, 5), atol=1e-2)
    np.testing.assert_allclose(product(3, 3), (query * key).sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    "scaling", [RopeScalingConfig("linear", 4.0), RopeScalingConfig("llama3", 8.0, 1.0, 4.0, 50)], ids=lambda s: s.kind
)
def test_slower_turns(scaling):
    """Fast, middling and slow frequencies, against the rule written case by case."""
    speed = 10_000.0 ** (-np.arange(0, 32, 2) / 32)
    want = np.array([slowed(scaling, one) for one in speed])
    kinds = np.isclose(want, speed) + 2 * np.isclose(want, speed / scaling.factor)
    assert scaling.kind == "linear" or set(kinds) == {0, 1, 2}  # the case holds all three
    cos, sin = rotary_angles(POSITIONS, 32, 10_000.0, scaling, jnp.float32)
    angle = np.asarray(POSITIONS)[..., None] * want
    np.testing.assert_allclose(cos, np.cos(angle), atol=1e-4)
    np.testing.assert_allclose(sin, np.sin(angle), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear", 0.5), "factor=0.5"),
        (("llama3", 8.0, 4.0, 4.0), "low_freq_factor=4.0, high_freq_factor=4.0: expected low < high"),
        (("llama3", 8.0, 1.0, 4.0, 0), "original_positions=0"),
    ],
)
def test_impossible_scaling(arguments, message):
    with pytest.raises(ValueError, match=message):
        RopeScalingConfig(*arguments)
