"""What each mode answers; the laws and lists of the modes are tested with the decoders."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding import noise
from atspeed_jax.decoding.base import DecodeError, Mode
from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import Children
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.decoding.selection import SELECTIONS, Coupled, Reference, Relaxed, Strict, selection_of

KEYS = noise.user_keys(3, np.arange(2))


def children(missing=()):
    """Six children of five nodes of depth 2 for two users, with random scores."""
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(2, 9, (2, 5, 3)), jnp.int32)
    zeros = jnp.zeros((2, 5))
    parents = Beams(tokens, tokens, zeros - 1, zeros.astype(int), zeros == 0, zeros)
    token = jnp.broadcast_to(jnp.arange(2, 8), (2, 5, 6))
    exists = jnp.ones(token.shape, bool).at[..., list(missing)].set(False)
    return Children(parents, token, token, jnp.asarray(rng.normal(size=token.shape), jnp.float32), exists, level=2)


def test_every_mode_of_the_settings_has_a_selection():
    assert tuple(selection.mode for selection in SELECTIONS) == get_args(Mode)
    for selection in SELECTIONS:
        assert selection_of(selection.mode) == selection
        assert hash(selection) == hash(selection_of(selection.mode))
    with pytest.raises(DecodeError, match="mode='greedy': expected one of strict, stochastic, relaxed, coupled"):
        selection_of("greedy")


def test_a_baseline_is_of_the_target_alone_and_its_own():
    for selection in SELECTIONS:
        alone = selection_of(selection.baseline)
        assert alone.baseline == alone.mode
        assert alone.draws == selection.draws


def test_strict_has_no_noise():
    assert Strict().perturb(children(), None, Purpose.TARGET).perturbed is None


@pytest.mark.parametrize("selection", [Relaxed(), Reference()], ids=lambda selection: selection.mode)
def test_a_draw_is_score_plus_the_noise_of_its_purpose(selection):
    some = children(missing=[3])
    for purpose in (Purpose.DRAFT, Purpose.TARGET):
        drawn = selection.perturb(some, KEYS, purpose).perturbed
        expected = some.total + noise.of_children(KEYS, some, purpose)
        np.testing.assert_array_equal(drawn, jnp.where(some.exists, expected, LOWEST))


def test_coupled_draws_with_one_noise_whatever_it_is_for():
    some = children()
    drafted, drawn = (Coupled().perturb(some, KEYS, purpose).perturbed for purpose in (Purpose.DRAFT, Purpose.TARGET))
    np.testing.assert_array_equal(drafted, drawn)
    np.testing.assert_array_equal(drawn, Relaxed().perturb(some, KEYS, Purpose.TARGET).perturbed)
