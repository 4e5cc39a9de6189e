import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import DecodeError, Layout, Prompt, first_token, select_rows
from table_model import TableStep


def test_levels_own_disjoint_slots_after_the_prompt():
    layout = Layout(5, (1, 4, 6, 2))
    owned = [set(range(o, o + r)) for o, r in zip(layout.offset, layout.capacity, strict=True)]
    assert owned[0] == {4}  # the root is the last prompt token
    assert sorted(set().union(*owned[1:])) == list(range(5, 17))
    assert sum(map(len, owned[1:])) == 12
    assert layout.slots == 17
    assert Layout(3, (1,)).slots == 3


def test_last_position_counts_real_tokens():
    valid = jnp.array([[False, False, True], [True, True, True]])
    assert Prompt(jnp.zeros((2, 3), jnp.int32), valid).last_position.tolist() == [0, 2]


def test_select_rows_of_any_rank():
    then, otherwise = ({"a": jnp.full((3,), v), "b": jnp.full((3, 2, 2), v)} for v in (1, 2))
    chosen = select_rows(jnp.array([True, False, True]), then, otherwise)
    assert chosen["a"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(chosen["b"][:, 1, 1], [1, 2, 1])


def test_a_norm_over_the_vocabulary_needs_the_logits_of_all_tokens():
    class Cut(TableStep):
        first_token = 7

    assert first_token(TableStep(), "vocab") == first_token(TableStep(), "trie") == 0
    assert first_token(Cut(), "trie") == 7
    with pytest.raises(DecodeError, match=r"the logits of the tokens below 7:.*take a model with first_token=0"):
        first_token(Cut(), "vocab")
