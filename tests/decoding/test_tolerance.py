"""Shares by hand; lists and calls under tolerance are in test_speculative_tolerance.py."""

import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.tolerance import join_shares, still_fill, uncovered_share
from two_levels import IDS, LEVEL_TWO, TRIE, level_two


def test_the_share_of_beams_that_are_not_covered():
    beams = level_two([0, 1, 3], np.log([0.5, 0.3, 0.2]), [True, True, True])
    share = uncovered_share(beams, jnp.array([[True, False, True], [True, True, True]]))
    np.testing.assert_allclose(share, [0.3, 0.0], rtol=1e-6)
    beams = level_two([0, 1, 3], [0.0, -1e30, 5.0], [True, True, False])
    share = uncovered_share(beams, jnp.array([[True, False, True]] * 2))
    assert (share > 0).all()  # however improbable the beam is


def test_shares_are_joined_without_rounding_a_small_one_away():
    assert float(join_shares(jnp.float32(0.5), jnp.float32(0.5))) == 0.75
    assert float(join_shares(jnp.float32(0), jnp.float32(1e-12))) == np.float32(1e-12)


def test_covered_beams_still_fill_the_list_if_enough_ids_are_below_them():
    below = [sum(tuple(row[:2]) == prefix for row in IDS.tolist()) for prefix in LEVEL_TWO]
    beams = level_two([0, 1, 3], [-1.0, -2.0, -3.0])
    covered = jnp.array([[True, False, True], [False, True, False]])
    for count in range(1, 9):
        enough = min(below[0] + below[1] + below[3], count)
        expected = [below[0] + below[3] >= enough, below[1] >= enough]
        assert still_fill(TRIE, 2, beams, covered, count=count).tolist() == expected
