import dataclasses

import pytest

from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.config import SearchConfig, TreeConfig, resolve_widths


@pytest.mark.parametrize(
    ("widths", "beams", "expected"),
    [
        (("all", 64, 96), 20, (91, 64, 96)),
        ((40, 40, 40), 20, (40, 40, 40)),
        (("all", "all", "all"), 20, (91, 6539, 11172)),
        ((500, 7000, 20), 20, (91, 6539, 20)),  # never wider than the level
        ((91, 100, 100), 100, (91, 100, 100)),  # the least allowed at level 1 is all its prefixes
        ((1, 1, 1), 1, (1, 1, 1)),
    ],
)
def test_widths_become_ints(widths, beams, expected):
    assert resolve_widths(widths, (91, 6539, 11172, 12023), beams) == expected


@pytest.mark.parametrize(
    ("widths", "beams", "message"),
    [
        (
            (19, 64, 96),
            20,
            r"width 19 of level 1 is below min\(K=20, 91 prefixes .* raise it in widths, or lower K \(beams\)",
        ),
        (("all", 64, 96), 100, r"width 64 of level 2 is below min\(K=100, 6539 prefixes"),
        ((90, 100, 100), 100, r"width 90 of level 1 is below min\(K=100, 91 prefixes of that level\) = 91"),
        (("all", 0, 96), 1, "width 0 of level 2"),
        ((-1, 64, 96), 1, "width -1 of level 1"),
        (("most", 64, 96), 20, "width 'most' of level 1: expected an int or 'all'"),
        ((91, 64.5, 96), 20, "width 64.5 of level 2: expected an int or 'all'"),
        (("all", 64), 20, "has 2 entries; ids of length 4 need 3"),
        ((40, 40, 40, 40), 20, "has 4 entries; ids of length 4 need 3"),
    ],
)
def test_widths_that_cannot_work(widths, beams, message):
    with pytest.raises(DecodeError, match=message):
        resolve_widths(widths, (91, 6539, 11172, 12023), beams)


def test_ids_of_one_code_have_no_widths():
    assert resolve_widths((), (50,), 20) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((("all", 4), 1, "vocab"), "widths=.*'all' must be resolved for a catalog first"),
        (((4,), 1, "softmax"), "score_norm='softmax': expected 'vocab' or 'trie'"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(DecodeError, match=message):
        SearchConfig(*settings, beams=1).resolved_widths(2)


def test_a_search_is_resolved_for_a_catalog():
    search = SearchConfig.of(TreeConfig(("all", 64, 96), 3, "vocab", 40), 20)
    assert search == SearchConfig(("all", 64, 96), 3, "vocab", 40, beams=20)
    assert search.resolve((91, 6539, 11172, 12023)) == dataclasses.replace(search, widths=(91, 64, 96))
    with pytest.raises(DecodeError, match="budget=40: expected at least K=60"):
        dataclasses.replace(search, beams=60).resolve((91, 6539, 11172, 12023))
    with pytest.raises(DecodeError, match="width 64 of level 2 is below"):
        dataclasses.replace(search, beams=70).resolve((91, 6539, 11172, 12023))


def test_settings_are_a_value():
    assert hash(SearchConfig((4,), 1, "vocab", beams=4)) == hash(SearchConfig((4,), 1, "vocab", beams=4))
    assert SearchConfig((4,), 1, "vocab", beams=4) != SearchConfig((4,), 1, "trie", beams=4)
