"""Which cells are measured, what each of them times, and what does not fit."""

import dataclasses

import numpy as np
import pytest

from atspeed_jax.benchmarks import decode_cells
from atspeed_jax.benchmarks.decode_cells import (
    Cell,
    DecodeSuite,
    SuiteError,
    Tree,
    cells_of,
    check_suite,
    code_state,
    identity,
    ways_of,
)
from atspeed_jax.serving.settings import DecodeConfig, Setting
from tiny_pair import tiny_pair

PAIR = tiny_pair()
DECODERS = PAIR.decoders(PAIR.target, unrolled=True)
CELL = Cell("pair", 2, 1, 9)


TUNED = Setting.strict("draft", 2, DecodeConfig((2, 3), 1, "vocab"))


def ways(**fields):
    suite = DecodeSuite(**{"methods": ("plain", "speculative"), **fields})
    return [(way.method, way.mode, way.setting.label) for way in ways_of(PAIR, suite, CELL, DECODERS)]


def test_a_tree_is_read():
    assert Tree.parse("all,64,96") == Tree(("all", 64, 96))
    assert Tree.parse("20:128,64/192") == Tree((128, 64), 192, 20)
    for text in ("a,b", "x:1,2", "1,2/x", ""):
        with pytest.raises(SuiteError, match=f"--settings={text}: expected widths such as"):
            Tree.parse(text)


def test_a_cell_times_plain_beam_search_and_what_rivals_it():
    assert ways() == [
        ("plain", "strict", "beam_search_none_K2_wnone_g0_vocab"),
        ("speculative", "strict", "speculative_draft_K2_w3-4_g2_vocab"),
    ]
    assert ways(methods=("plain", "popularity"))[1][2] == "speculative_popularity_K2_w3-4_g2_vocab"


def test_whole_prompts_stand_beside_a_shared_head():
    found = ways(methods=("plain", "speculative", "whole_prompt"))
    assert [label for method, _, label in found if method == "whole_prompt"] == [label for *_, label in found[:2]]
    suite = DecodeSuite(methods=("plain", "whole_prompt"))
    with pytest.raises(SuiteError, match="--methods=whole_prompt: the pair's prompts have no instruction"):
        check_suite(PAIR, suite)
    check_suite(dataclasses.replace(PAIR, head=np.array([1, 5])), suite)


def test_given_trees_replace_those_of_the_run():
    trees = (Tree((1, 2)), Tree((4, "all"), 6), Tree((4, 4), None, 5))
    assert [label for *_, label in ways(trees=trees)[1:]] == [
        "speculative_draft_K2_w2-2_g2_vocab",
        "speculative_draft_K2_w4-all_g2_vocab_b6",
    ]


def test_a_mode_that_draws_stands_beside_plain_drawing():
    drawn = ways(modes=("relaxed", "coupled"), trees=(Tree((3, 4), 6),))[2:]
    assert [(method, mode) for method, mode, _ in drawn] == [
        ("plain", "relaxed"),
        ("speculative", "relaxed"),
        ("speculative", "coupled"),
    ]
    assert not any("_b6" in label for *_, label in drawn)


def test_what_was_tuned_is_taken():
    suite = DecodeSuite(methods=("plain", "speculative", "popularity"))
    found = ways_of(PAIR, suite, CELL, DECODERS, TUNED)
    assert [(way.method, way.setting) for way in found[1:2]] == [("speculative", TUNED)]
    assert [way.method for way in ways_of(PAIR, suite, CELL, DECODERS, Setting.beam_search(2, "vocab"))] == ["plain"]


def test_a_cell_is_known_by_all_that_its_times_depend_on(monkeypatch):
    suite = DecodeSuite()
    found = ways_of(PAIR, suite, CELL, DECODERS)
    first = identity(PAIR, suite, CELL, found)
    assert identity(PAIR, suite, CELL, found) == first
    changed = [
        identity(PAIR, dataclasses.replace(suite, dtype="bfloat16"), CELL, found),
        identity(PAIR, suite, dataclasses.replace(CELL, batch=2), found),
        identity(PAIR, suite, CELL, found[:1]),
        identity(dataclasses.replace(PAIR, tokens=PAIR.tokens[1:]), suite, CELL, found),
    ]
    monkeypatch.setattr(decode_cells, "code_state", lambda: "another")
    assert len({first, *changed, identity(PAIR, suite, CELL, found)}) == 6
    assert len(code_state()) == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shapes": ("9m",)}, "--shapes=9m: expected some of pair, 3m, 10m"),
        ({"methods": ("fast",)}, "--methods=fast: expected some of plain, speculative"),
        ({"modes": ("stochastic",)}, "--modes=stochastic: expected some of relaxed, coupled"),
        ({"beams": ()}, "--beams is empty"),
    ],
)
def test_unknown_names_are_named(fields, message):
    with pytest.raises(SuiteError, match=message):
        DecodeSuite(**fields)


@pytest.mark.parametrize(("tree", "beams"), [(Tree((8, 8), 4), (1, 5)), (Tree((8, 8), 4, 5), (1,))])
def test_a_budget_below_k_is_refused(tree, beams):
    message = "--settings=8,8/4: a budget of 4 nodes cannot hold K=5: give 5 or more, or .* in front, as 4:8,8/4"
    with pytest.raises(SuiteError, match=message):
        check_suite(PAIR, DecodeSuite(beams=beams, trees=(tree,)))
    check_suite(PAIR, DecodeSuite(beams=(1, 4), trees=(Tree((8, 8), 4),)))


def test_cells_are_all_combinations():
    suite = DecodeSuite(shapes=("pair", "10m"), beams=(1, 5), batches=(1,), prompts=(40, 80))
    assert len(cells_of(suite)) == 8
    assert cells_of(suite)[0] == Cell("pair", 1, 1, 40)
