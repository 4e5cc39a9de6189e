import numpy as np
import pytest

from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.items.catalog import BOS, Catalog, CatalogError

CATALOG = Catalog.from_codes([[0, 1], [2, 0], [1, 1]])


def test_bos_then_the_items_in_order():
    tokens = prompt_tokens(CATALOG, [1, 0], 5)
    assert tokens.tolist() == [BOS, 4, 5, 2, 6] and tokens.dtype == np.int32


def test_the_newest_items_stay():
    assert prompt_tokens(CATALOG, [0, 0, 1, 2], 2).tolist() == prompt_tokens(CATALOG, [1, 2], 2).tolist()
    assert prompt_tokens(CATALOG, [0, 1, 2], 0).tolist() == [BOS]


def test_empty_history_is_bos_alone():
    for empty in ([], (), np.zeros(0, np.int32)):
        assert prompt_tokens(CATALOG, empty, 20).tolist() == [BOS]


def test_bad_input():
    with pytest.raises(CatalogError, match="item 3 is not in the catalogue"):
        prompt_tokens(CATALOG, [0, 3], 20)
    with pytest.raises(ValueError, match="history is -1"):
        prompt_tokens(CATALOG, [0], -1)
