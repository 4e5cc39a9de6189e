"""What is said of a dataset before anything is trained on it."""

import re

import numpy as np
import pytest

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.sources import Source, read_atspeed
from atspeed_jax.data.summary import summarize

CODES = [[0, 0], [0, 1], [1, 0], [1, 0], [2, 1], [1, 0]]


def dataset_of(train, valid, test, codes=CODES) -> Dataset:
    rows = (tuple(np.array(items, np.int32) for items in part) for part in (train, valid, test))
    return Dataset.of(Source("shop", np.array(codes), *rows))


def test_counts():
    summary = summarize(dataset_of([[0, 1, 0], [2]], [[3], []], [[4, 1, 5, 0], []]))
    assert (summary.users, summary.users_with) == (2, (2, 1, 1))
    assert summary.interactions == (4, 1, 4)
    assert (summary.items, summary.trained_items, summary.ids) == (6, 3, 4)
    assert (summary.shared_ids, summary.colliding_items, summary.largest) == (1, 3, 3)
    assert (summary.codes_in_use, summary.level_sizes) == ((3, 2), (3, 2))
    assert summary.untrained_share == 0.5
    assert summary.warnings == ()
    text = summary.text()
    assert "data of shop" in text
    assert "4 train, 1 valid, 4 test" in text
    assert "50.0% of the test interactions" in text
    assert "0 to 5" in text
    assert "item 1 there is item 0 here" in text
    assert "warning" not in text


def test_nothing_is_shared_and_nobody_has_test_items():
    summary = summarize(dataset_of([[0], [1]], [[1], [0]], [[], []], CODES[:3]))
    assert (summary.shared_ids, summary.colliding_items, summary.largest) == (0, 0, 1)
    assert summary.untrained_share == 0.0
    assert "0 of 2 users have test items" in summary.warnings[0]


@pytest.mark.parametrize(("users_with", "warned"), [(4, True), (5, False)])
def test_a_split_that_is_empty_for_nearly_all(users_with, warned):
    valid = [[0]] * users_with + [[]] * (100 - users_with)
    (*found,) = summarize(dataset_of([[1]] * 100, valid, [[2]] * 100)).warnings
    assert len(found) == warned
    if warned:
        assert "4 of 100 users have valid items" in found[0]
        assert "are the data of valid whole?" in found[0]


TRAIN = [[0, 1, 2], [3, 4], [5], [1, 0, 1]]


@pytest.mark.parametrize(
    ("valid", "test", "warned"),
    [
        ([[0, 1, 2, 5], [3, 4, 1], [5, 0], [4]], [[3]] * 4, {"valid"}),  # cumulated
        ([[1, 2, 5], [3, 4], [5, 0], [4]], [[3]] * 4, {"valid"}),  # the newest two, then the next
        ([[5], [1], [0], [4]], [[0, 1, 2, 5, 3], [3, 4, 1, 3], [5, 0, 3], [3]], {"test"}),
        ([[0, 1, 2, 5], [3, 4, 1], [5, 0], [4]], [[0, 1, 2, 5, 3], [3, 4, 1, 3], [5, 0, 3], [3]], {"valid", "test"}),
        ([[2, 5], [4, 1], [5, 0], [1]], [[3]] * 4, set()),  # bought once more
        ([[0, 1, 2, 5], [1], [5, 0], [4]], [[3]] * 4, set()),  # of one user alone
    ],
)
def test_lines_that_repeat_the_history(valid, test, warned):
    warnings = summarize(dataset_of(TRAIN, valid, test)).warnings
    assert len(warnings) == len(warned)
    for split, warning in zip(sorted(warned, reverse=True), warnings, strict=True):
        assert f"the {split} items of " in warning
        assert f"sequential_{split}.txt must hold only" in warning


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda codes: codes * [1, 0] + np.array([0, 7]), "all items have code 7 at level 2: the level tells nothing"),
        (
            lambda codes: codes + np.array([0, 2]),
            "the 2 codes of level 2 are numbered from 2: .* number each level from 0",
        ),
        (lambda codes: codes + np.array([0, 1]), None),
    ],
)
def test_levels_that_tell_little(change, warning):
    rows = [[0, 1], [2]], [[3], []], [[4], []]
    warnings = summarize(dataset_of(*rows, codes=change(np.array(CODES)))).warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or re.search(warning, warnings[0])


def test_an_id_of_many_items():
    rows = [[0, 1], [2]], [[3], []], [[4], []]
    for items, warned in ((20, False), (21, True)):
        codes = [[0, 0]] * items + [[0, 1], [1, 0]]
        warnings = summarize(dataset_of(*rows, codes=codes)).warnings
        assert [f"{items} items share one id" in warning for warning in warnings] == [True] * warned


def test_beauty(beauty_dir):
    summary = summarize(Dataset.of(read_atspeed(beauty_dir)))
    assert (summary.items, summary.ids, summary.users) == (12035, 12023, 19383)
    assert summary.interactions == (122241, 9316, 7313)
    assert summary.users_with[2] == 3553
    assert round(summary.untrained_share, 2) == 0.25
    assert (summary.shared_ids, summary.colliding_items, summary.largest) == (9, 21, 4)
    assert summary.codes_in_use[0] == 91
    assert summary.warnings == ()
