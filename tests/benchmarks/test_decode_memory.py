"""What does not fit is named before anything is measured."""

import dataclasses

import jax
import pytest

from atspeed_jax.benchmarks.decode_cells import Cell, DecodeSuite, SuiteError, Tree, config_of
from atspeed_jax.benchmarks.decode_memory import bytes_needed, fitting, parameters, widest_tree
from atspeed_jax.models.llama import init_params
from atspeed_jax.models.wide_shapes import WidenError
from tiny_pair import tiny_pair

PAIR = tiny_pair()


def test_the_largest_tree_counts():
    assert widest_tree(PAIR, DecodeSuite(), 2) == (3, 4)
    assert widest_tree(PAIR, DecodeSuite(trees=(Tree((2, 2)), Tree(("all", "all")), Tree((4, 4), None, 7))), 2)[0] == 4
    assert widest_tree(PAIR, DecodeSuite(trees=(Tree((1, 2), None, 2), Tree(("all", "all"), None, 7))), 2) == (2, 2)
    assert sum(widest_tree(PAIR, DecodeSuite(tune=True), 2)) > 7


def test_parameters_are_counted():
    for config in (PAIR.target, dataclasses.replace(PAIR.target, tied_embeddings=False, layers=3, kv_heads=1)):
        leaves = jax.tree.leaves(jax.eval_shape(lambda key, c=config: init_params(c, key), jax.random.key(0)))
        assert parameters(config) == sum(leaf.size for leaf in leaves)


def test_a_cell_that_does_not_fit_is_named_and_left_out():
    suite = DecodeSuite(beams=(2,), batches=(1,), prompts=(9, 90_000))
    need = bytes_needed(PAIR, PAIR.target, Cell("pair", 2, 1, 9), (3, 4))
    cells, left_out = fitting(PAIR, suite, memory=2 * need)
    assert cells == [Cell("pair", 2, 1, 9)]
    assert left_out[0].startswith("pair, K=2, batch 1, prompt 90000 does not fit: it needs about ")
    with pytest.raises(SuiteError, match="nothing to measure: pair, K=2, batch 1, prompt 9 does not fit"):
        fitting(PAIR, suite, memory=need / 2)


def test_the_estimate_is_of_models_cache_and_call():
    wide = config_of(PAIR, DecodeSuite(dtype="bfloat16"), "llama-7b")
    assert 13e9 < bytes_needed(PAIR, wide, Cell("x", 20, 1, 100), (128, 64, 64)) / 1.25 < 14e9


def test_a_prompt_that_no_user_has_is_named():
    cells, left_out = fitting(PAIR, DecodeSuite(beams=(2,), batches=(1,), prompts=(2, 9)), memory=1e12)
    assert [cell.prompt for cell in cells] == [9]
    assert "prompt 2: prompt=2, batch=1: 0 of the pair's 12 prompts" in left_out[0]


def test_a_shape_that_the_target_does_not_fit_is_an_error():
    odd = dataclasses.replace(PAIR, target=dataclasses.replace(PAIR.target, head_dim=24))
    with pytest.raises(WidenError, match=r"head_dim=24 .* head_dim=128 of shape llama-7b"):
        fitting(odd, DecodeSuite(shapes=("llama-7b",)), memory=1e12)


def test_logits_are_those_that_the_norm_needs():
    """Of 24 ids behind many words, under trie norm those of codes alone."""
    words = 100_000
    target = dataclasses.replace(PAIR.target, vocab_size=words + PAIR.target.vocab_size)
    worded = dataclasses.replace(PAIR, target=target, id_tokens=PAIR.id_tokens + words)
    by_trie = dataclasses.replace(worded, decode=dataclasses.replace(PAIR.decode, score_norm="trie"))
    cell = Cell("pair", 2, 1, 9)
    whole, codes = (bytes_needed(one, target, cell, (3, 4)) for one in (worded, by_trie))
    assert whole - codes == 1.25 * 4 * (1 + 7) * by_trie.first_code
