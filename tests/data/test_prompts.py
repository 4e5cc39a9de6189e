import dataclasses

import numpy as np
import pytest

from atspeed_jax.data.prompts import prompt_rows, prompt_tokens, prompt_width, shared_head, training_rows
from atspeed_jax.items.catalog import BOS, Catalog, CatalogError, Instruction

CATALOG = Catalog.from_codes([[0, 1], [2, 0], [1, 1]])
WORDED = dataclasses.replace(
    CATALOG.behind(20, BOS), instruction=Instruction((BOS, 10), (11, 12), (13,), (BOS, 10, 14, 15, 15, 13))
)


def test_bos_then_the_items_in_order():
    tokens = prompt_tokens(CATALOG, [1, 0], 5)
    assert tokens.tolist() == [BOS, 4, 5, 2, 6]
    assert tokens.dtype == np.int32


def test_the_newest_items_stay():
    assert prompt_tokens(CATALOG, [0, 0, 1, 2], 2).tolist() == prompt_tokens(CATALOG, [1, 2], 2).tolist()
    assert prompt_tokens(CATALOG, [0, 1, 2], 0).tolist() == [BOS]


def test_empty_history_is_bos_alone():
    for empty in ([], (), np.zeros(0, np.int32)):
        assert prompt_tokens(CATALOG, empty, 20).tolist() == [BOS]


def test_an_instruction_stands_around_the_newest_items():
    assert prompt_tokens(WORDED, [0], 5).tolist() == [BOS, 10, 20, 24, 13]
    assert prompt_tokens(WORDED, [2, 0, 1], 2).tolist() == [BOS, 10, 20, 24, 11, 12, 22, 23, 13]
    assert prompt_tokens(WORDED, [], 5).tolist() == prompt_tokens(WORDED, [1], 0).tolist() == [BOS, 10, 14, 15, 15, 13]


@pytest.mark.parametrize(
    ("head", "empty", "shared"),
    [
        ((BOS, 10), (BOS, 10, 14, 13), (BOS, 10)),
        ((BOS, 10, 11, 12), (BOS, 10, 14, 13), (BOS, 10)),  # "items <a_1>" and "items in"
        ((BOS, 10, 11), (BOS, 10, 11), (BOS, 10)),  # a prompt goes on behind the head
        ((BOS,), (BOS, 13), ()),
    ],
)
def test_the_head_is_what_every_prompt_begins_with(head, empty, shared):
    catalog = dataclasses.replace(WORDED, instruction=Instruction(head, (11, 12), (13,), empty))
    assert shared_head(catalog) == shared
    for items in ([], [1], [2, 0]):
        prompt = tuple(prompt_tokens(catalog, items, 2).tolist())
        assert prompt[: len(shared)] == shared
        assert len(prompt) > len(shared)
    assert shared_head(CATALOG) == ()


@pytest.mark.parametrize("catalog", [CATALOG, WORDED], ids=["items alone", "instruction"])
def test_widths_hold_the_longest(catalog):
    for history in range(4):
        histories = [[0, 1, 2, 1][:n] for n in range(history + 1)]
        prompts = prompt_rows(catalog, histories, history)
        assert prompts.shape == (history + 1, prompt_width(catalog, history))
        assert prompts.dtype == np.int32
        assert max(len(prompt_tokens(catalog, items, history)) for items in histories) == prompts.shape[1]
        for row, items in zip(prompts, histories, strict=True):
            assert row[row > 0].tolist() == prompt_tokens(catalog, items, history).tolist()
            assert row[-1] > 0


def test_a_training_row_is_a_prompt_and_its_answer():
    assert training_rows(WORDED, [[2], [2, 0, 1]], 4)[:, -11:].tolist() == [
        [0, 0, 0, BOS, 10, 14, 15, 15, 13, 21, 24],
        [BOS, 10, 21, 24, 11, 12, 20, 24, 13, 22, 23],
    ]
    assert training_rows(CATALOG, [[2], [2, 0, 1]], 3).tolist() == [
        [0, 0, 0, 0, *prompt_tokens(CATALOG, [2], 3)],
        prompt_tokens(CATALOG, [2, 0, 1], 3).tolist(),
    ]


def test_bad_input():
    with pytest.raises(CatalogError, match="item 3 is not in the catalog"):
        prompt_tokens(CATALOG, [0, 3], 20)
    with pytest.raises(ValueError, match="history is -1"):
        prompt_tokens(CATALOG, [0], -1)
