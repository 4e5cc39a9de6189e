import jax
import jax.numpy as jnp

from atspeed_jax.programs import forget_programs


def test_programs_are_dropped_only_when_there_are_many_maps():
    double = jax.jit(lambda x: 2 * x)
    double(jnp.ones(3))
    assert not forget_programs(most=10**9) and double._cache_size() == 1
    assert forget_programs(most=1) and double._cache_size() == 0
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
