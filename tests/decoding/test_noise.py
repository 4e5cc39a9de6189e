import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding import noise
from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import Children
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.decoding.selection import Stochastic

KEYS = noise.user_keys(3, np.arange(4))


def beams_of(tokens, perturbed=None):
    """Beams [B, N] of depth 2 with the given tokens [B, N, 3]."""
    tokens = jnp.asarray(tokens, jnp.int32)
    shape = tokens.shape[:2]
    return Beams(tokens, tokens, jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), perturbed)


def children_of(beams, token, log_prob=None, exists=None, level=2):
    token = jnp.asarray(token, jnp.int32)
    log_prob = jnp.zeros(token.shape) if log_prob is None else jnp.asarray(log_prob, jnp.float32)
    exists = jnp.ones(token.shape, bool) if exists is None else jnp.asarray(exists)
    return Children(beams, token, token, log_prob, exists, level=level)


TOKENS = np.random.default_rng(0).integers(2, 9, (4, 5, 3))
TOKEN = np.random.default_rng(1).integers(2, 9, (4, 5, 6))


def values(keys=KEYS, tokens=TOKENS, token=TOKEN, purpose=Purpose.BEAM, level=2):
    return np.asarray(noise.of_children(keys, children_of(beams_of(tokens), token, level=level), purpose))


def test_noise_is_that_of_a_chain_of_keys():
    """user, purpose, code, code, ...: said again with single keys."""
    key = jax.random.fold_in(jax.random.key(3), 2)
    for number in (int(Purpose.BEAM), *TOKENS[2, 4, :2].tolist(), int(TOKEN[2, 4, 1])):
        key = jax.random.fold_in(key, number)
    np.testing.assert_allclose(values()[2, 4, 1], jax.random.gumbel(key), rtol=1e-6)
    uniform = noise.of_nodes(KEYS, jnp.asarray(TOKENS), 2, Purpose.ACCEPT)
    key = jax.random.fold_in(jax.random.key(3), 1)
    for number in (int(Purpose.ACCEPT), *TOKENS[1, 3, :2].tolist()):
        key = jax.random.fold_in(key, number)
    np.testing.assert_allclose(uniform[1, 3], jax.random.uniform(key), rtol=1e-6)


def test_noise_is_that_of_user_and_prefix_whatever_slot_and_batch_they_are_in():
    here = values()
    rows, nodes, places = np.array([2, 0, 3]), np.array([4, 1, 0]), np.array([5, 3])
    moved = values(KEYS[rows], TOKENS[rows][:, nodes], TOKEN[rows][:, nodes][..., places])
    np.testing.assert_array_equal(moved, here[rows][:, nodes][..., places])
    other = TOKENS.copy()
    other[..., 2] += 1  # beyond the prefix
    np.testing.assert_array_equal(values(tokens=other), here)


def test_users_purposes_prefixes_and_seeds_have_noise_of_their_own():
    here, other = values(), TOKENS.copy()
    other[..., 0] += 1
    for there in (
        values(keys=KEYS[::-1]),
        values(keys=noise.user_keys(4, np.arange(4))),
        values(purpose=Purpose.DRAFT),
        values(tokens=other),
        values(token=TOKEN + 1),
    ):
        assert not np.isclose(there, here).any()


def test_children_of_the_largest_noise_are_their_parent():
    """Conditioned on the parent's own value: the largest child has it, the others are below, in the order of the free
    ones, and equal the formula as it stands in double precision."""
    rng = np.random.default_rng(2)
    log_prob = np.log(rng.dirichlet(np.ones(6), (4, 5)))
    exists = rng.random((4, 5, 6)) < 0.8
    exists[..., 0] = True
    perturbed = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    token = np.broadcast_to(np.arange(2, 8), (4, 5, 6))
    children = children_of(beams_of(TOKENS, perturbed), token, log_prob, exists)
    found = Stochastic().perturb(children, KEYS, Purpose.DRAFT).perturbed
    free = np.where(exists, log_prob + values(token=token), -np.inf).astype(np.float64)
    top, own = free.max(-1, keepdims=True), np.asarray(perturbed, np.float64)[..., None]
    expected = -np.log(np.exp(-own) - np.exp(-top) + np.exp(-free))
    np.testing.assert_allclose(np.asarray(found)[exists], expected[exists], atol=1e-4)
    np.testing.assert_allclose(found.max(-1), perturbed, atol=1e-6)
    assert (np.asarray(found)[~exists] == LOWEST).all()


def test_far_children_stay_finite_and_in_order():
    """Where the formula as it stands underflows."""
    log_prob = -np.array([0.0, 30, 60, 90, 300, 1000]) * np.ones((4, 5, 1))
    beams = beams_of(TOKENS, jnp.full((4, 5), -50.0))
    found = Stochastic().perturb(children_of(beams, TOKEN, log_prob), KEYS, Purpose.BEAM).perturbed
    free = log_prob + values()
    assert np.isfinite(found).all()
    assert (found <= -50.0).all()
    np.testing.assert_array_equal(np.argsort(-free, -1)[..., 1:], np.argsort(-np.asarray(found), -1)[..., 1:])
