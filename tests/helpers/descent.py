"""A few steps of Adam, for tests that something can be learnt."""

import jax
import optax


def descend(loss, params, *, steps: int = 60) -> list[float]:
    """Values of loss(params) before each step."""
    optimizer = optax.adam(3e-2)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    return values
