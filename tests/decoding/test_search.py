import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import DecodeError, Prompt
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.items.trie import build_trie

TRIE = build_trie(np.array([[2, 5, 7], [2, 6, 7], [3, 5, 8]]))
TOKENS = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)


def search(widths=(2, 6), trie=TRIE):
    prompt = Prompt(TOKENS, TOKENS >= 0, user_keys(0, np.arange(4)))
    return Search.of(trie, prompt, SearchConfig(widths, 2, "vocab", beams=4, mode="coupled"))


def test_a_level_has_slots_for_its_settled_beams_and_its_drafted_nodes():
    assert search().layout.capacity == (1, 4, 6)
    assert search().layout.slots == 3 + 4 + 6
    assert (search().batch, search().length, search().selection.mode) == (4, 3, "coupled")


def test_a_wrong_number_of_widths_is_refused():
    with pytest.raises(DecodeError, match=r"widths=\(2,\): ids of length 3 need 2 widths"):
        search(widths=(2,))


def test_rows_are_those_of_prompt_keys_and_lists():
    lists = jnp.arange(4)[:, None]
    part = search(trie=FilteredTrie(TRIE, lists, allow=False)).take_rows(jnp.array([3, 1]))
    assert part.prompt.tokens.tolist() == TOKENS[jnp.array([3, 1])].tolist()
    assert part.trie.ids.tolist() == [[3], [1]]
    np.testing.assert_array_equal(jax.random.key_data(part.keys), jax.random.key_data(user_keys(0, np.array([3, 1]))))
