import dataclasses

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.planning.decode_passes import Pair, first_round, later_round, plain_search

TARGET = LlamaConfig(10, 8, 16, 3, 2, 1, 4, 1e4, 1e-6, False, 0.0, "float32", False)
PAIR = Pair(TARGET, dataclasses.replace(TARGET, layers=1))
SEARCH = SearchConfig((4, 10, 6), 3, "vocab", beams=5)  # level 1 has 5 slots, since K is more than its width


def shapes(passes):
    """(model's layers, rows, tokens, tokens with logits) of each call."""
    return [(one.model.layers, one.rows, one.tokens, one.n_out) for one in passes]


def test_plain_search_reads_the_prompt_and_then_k_beams_per_level():
    assert shapes(plain_search(TARGET, 5, 4, 30, 2)) == [(3, 2, 30, 1), *[(3, 2, 5, 5)] * 3]


def test_round_one_reads_prompt_and_tree():
    assert shapes(first_round(PAIR, SEARCH, 30, 8)) == [(3, 8, 51, 22), (1, 8, 30, 1), (1, 8, 5, 5), (1, 8, 10, 10)]
    near = dataclasses.replace(SEARCH, gamma=1)
    assert shapes(first_round(PAIR, near, 30, 8))[0] == (3, 8, 35, 6)
    few = dataclasses.replace(SEARCH, budget=7)
    assert shapes(first_round(PAIR, few, 30, 8))[0] == (3, 8, 37, 8)


def test_a_later_round_reads_a_part_of_the_rows():
    assert shapes(later_round(PAIR, SEARCH, 30, 8)) == [(3, 2, 21, 21), (1, 2, 5, 5), (1, 2, 10, 10)]
    few = dataclasses.replace(SEARCH, budget=7, row_share=1)
    assert shapes(later_round(PAIR, few, 30, 8))[0] == (3, 8, 12, 12)


def test_without_a_draft_model_the_target_alone_is_called():
    alone = Pair(TARGET, None)
    assert len(first_round(alone, SEARCH, 30, 8)) == len(later_round(alone, SEARCH, 30, 8)) == 1


def test_a_shared_head_is_not_read():
    assert shapes(plain_search(TARGET, 5, 4, 30, 2, head=12))[0] == (3, 2, 18, 1)
    first = shapes(first_round(PAIR, SEARCH, 30, 8, head=12))
    assert first == [(3, 8, 39, 22), (1, 8, 18, 1), (1, 8, 5, 5), (1, 8, 10, 10)]
    assert first_round(PAIR, SEARCH, 30, 8, head=12)[0].seen == first_round(PAIR, SEARCH, 30, 8)[0].seen


def test_a_token_of_a_narrow_tree_is_multiplied_with_all_of_its_slots_and_one_of_a_wide_tree_with_its_path():
    assert [one.seen for one in first_round(PAIR, SEARCH, 30, 8)] == [51, 30, 51, 51]
    assert {one.seen for one in later_round(PAIR, SEARCH, 30, 8)} == {51}
    wide = dataclasses.replace(SEARCH, widths=(4, 10, 242))
    assert [one.seen for one in first_round(PAIR, wide, 30, 8)] == [33, 30, 33, 33]
    assert [one.seen for one in plain_search(TARGET, 5, 4, 30, 2)] == [30, 45, 45, 45]
