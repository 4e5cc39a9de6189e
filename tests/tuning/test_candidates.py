import dataclasses

import numpy as np
import pytest

from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning import candidates as C
from atspeed_jax.tuning.round_times import Curve, RoundTimes, search_seconds

FLAT = Curve((1,), (0.0,))


def times(per_node):
    line = Curve((0.0, 100.0), (1.0, 1.0 + 100 * per_node))
    return RoundTimes(line, line, line, 0.0, FLAT, FLAT)


class Users:
    """Users who need one call if level 1 is at least `width` wide and no budget cuts, else two."""

    def __init__(self, width):
        self.width, self.asked = width, 0

    def calls(self, search):
        self.asked += 1
        return np.array([1, 1, 1, 1] if search.widths[0] >= self.width and search.budget is None else [1, 2, 2, 2])


def test_the_widest_tree_fits_k_and_the_catalog():
    assert C.widest(5, "vocab", (91, 6000, 11000, 12000)) == SearchConfig((91, 62, 62), 3, "vocab", beams=5)
    assert C.widest(20, "trie", (16, 40, 0, 0)).widths == (16, 40, 1)
    assert C.widest(5, "vocab", (2000, 9)).widths == (62,)
    assert C.widest(5, "vocab", (9,)) == SearchConfig((), 1, "vocab", beams=5)


def test_widths_of_a_level():
    assert C.level_widths(1, 38, 10) == [1, 2, 3, 5, 8, 11, 17, 25, 38]
    assert C.level_widths(20, 16, 10) == [16]
    assert C.level_widths(20, 152, 3) == [20, 55, 152]


def test_thousands_of_searches_each_once():
    for beams in (1, 5, 20):
        every = list(C.searches(C.widest(beams, "trie", (91, 6000, 11000, 12000))))
        assert len(set(every)) == len(every) > 5000
        assert all(search.budget is None or beams <= search.budget for search in every)
        assert {search.gamma for search in every} == {1, 2, 3}
    assert list(C.searches(C.widest(4, "vocab", (9,)))) == [SearchConfig((), 1, "vocab", beams=4)]
    assert 1000 < len(list(C.searches(C.widest(5, "vocab", (100,) * 7)))) < 50_000  # ids of seven codes


def test_the_fastest_settings_are_found():
    wide, users = C.widest(4, "vocab", (60, 600, 6000)), Users(20)
    found, compared = C.fastest({"draft": users}, {"draft": times(0.05)}, wide, 1, 3)
    assert compared == len(list(C.searches(wide)))
    assert users.asked < 0.8 * compared  # the first round alone rules the others out
    every = [(search, Users(20).calls(search)) for search in C.searches(wide)]
    best = min(search_seconds(times(0.05), search, calls - 1).mean() for search, calls in every)
    assert found[0].seconds == best
    assert found[0].setting.search.widths[0] >= 20
    assert found[0].target_calls == 1
    assert [one.seconds for one in found] == sorted(one.seconds for one in found)
    dear, _ = C.fastest({"draft": Users(20)}, {"draft": times(1.0)}, wide, 1, 3)
    assert dear[0].setting.search.widths[0] == 4  # nodes that cost more than a call are not read


def test_the_slowest_row_rules_a_batch():
    wide = C.widest(4, "vocab", (60, 600, 6000))
    alone = C.fastest({"draft": Users(99)}, {"draft": times(0.001)}, wide, 1, 1)[0][0].seconds
    assert C.fastest({"draft": Users(99)}, {"draft": times(0.001)}, wide, 4, 1)[0][0].seconds > 1.5 * alone


def test_a_drafter_that_is_cheaper_wins():
    wide = C.widest(4, "vocab", (60, 600, 6000))
    costly = dataclasses.replace(times(0.001), draft_prompt=1.0)
    found, _ = C.fastest(
        {"draft": Users(5), "popularity": Users(5)}, {"draft": costly, "popularity": times(0.001)}, wide, 1, 1
    )
    assert found[0].setting.drafter == "popularity"


def expected(drafter, widths, gamma=2, calls=1.0):
    return C.Expected(Setting(drafter, SearchConfig(widths, gamma, "vocab", beams=4)), 1.0, calls)


def test_settings_that_read_alike_are_named_once():
    ranked = [
        expected("draft", (20, 30)),
        expected("draft", (21, 30)),
        expected("popularity", (20, 30)),
        expected("draft", (20, 60)),
        expected("draft", (20, 30), 1),
    ]
    assert C.finalists(ranked, 9) == [ranked[0], *ranked[2:]]
    assert C.finalists(ranked, 2) == [ranked[0], ranked[2]]


def test_every_second_finalist_needs_half_as_many_later_calls():
    """If calls cost more than thought, the fastest of all is among those."""
    calls = (2.2, 2.1, 1.9, 1.6, 1.5, 1.3)
    ranked = [expected("draft", (10 * (number + 1), 10), calls=each) for number, each in enumerate(calls)]
    assert C.finalists(ranked, 2) == [ranked[0], ranked[3]]  # 1.6 <= 1 + 1.2 / 2
    assert C.finalists(ranked, 3) == [ranked[0], ranked[1], ranked[3]]
    assert C.finalists(ranked, 4) == [ranked[0], ranked[1], ranked[3], ranked[5]]
    assert C.finalists(ranked[:2], 3) == ranked[:2]


def expecting(drafter_seconds):
    """Times of calls that cost a second each, however many nodes they read."""
    call = Curve((1,), (1.0,))
    return {name: RoundTimes(call, call, call, seconds, call, call) for name, seconds in drafter_seconds.items()}


@pytest.mark.slow
def test_times_of_another_device_rule_the_search(small_run):
    """Given instead of measured: where a node costs nothing the widest trees come first."""
    run = small_run.run
    shape = dataclasses.replace(run.config.evaluate.batch_shape(run.config.data.history), batch_size=2)
    batches = held_out_users(run.dataset, "valid").sample(4, 0).batches(run.dataset, shape)
    decoders = run.decoders(run.draft_params)
    wide = C.widest(4, "vocab", decoders.prefixes["vocab"])
    for dear, cheap in (("draft", "popularity"), ("popularity", "draft")):
        found, searched, curves = C.shortlist(decoders, batches, wide, expecting({dear: 100.0, cheap: 0.0}), 2)
        assert found[0].setting.drafter == cheap
        assert searched > 50
    assert {curve["drafter"] for curve in curves} == {"draft", "popularity"}
    for one in found:  # what the search expects is what the decoder does
        calls = decode_users(decoders.build(one.setting), batches, 4).calls
        assert calls.mean() == pytest.approx(one.target_calls)
    for curve in curves:  # so does the curve
        assert (curve["nodes"][0], curve["nodes"][-1]) == (4, sum(wide.widths))
        for place in (1, -1):
            search = dataclasses.replace(wide, budget=curve["nodes"][place])
            calls = decode_users(decoders.build(Setting(curve["drafter"], search)), batches, 4).calls
            assert calls.mean() == pytest.approx(curve["target_calls"][place])


def test_ids_of_one_code_have_no_nodes_to_choose():
    assert C.calls_by_nodes({"draft": None}, C.widest(4, "vocab", (9,))) == []


def test_batches_are_joined_to_one_length():
    batches = [
        {"tokens": np.full((2, width), width), "valid": np.ones((2, width), bool), "row": np.arange(2)}
        for width in (3, 5)
    ]
    parts = C.joined(batches, 3)
    assert [part.tokens.shape for part in parts] == [(3, 5), (1, 5)]
    assert parts[0].tokens[0].tolist() == [0, 0, 3, 3, 3]
    assert parts[0].valid[0].tolist() == [False, False, True, True, True]
    assert parts[1].tokens[0].tolist() == [5] * 5
