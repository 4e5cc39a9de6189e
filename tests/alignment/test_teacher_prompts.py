import numpy as np
import pytest

from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.items.catalog import Catalog


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (1, [([5], -1), ([1, 2, 3, 4], -1), ([4, 6, 2], -1)]),
        (
            2,
            [
                *[([5], -1), ([5, None], -1)],
                *[([1, 2, 3, 4], -1), ([1, 2, 3, 4, 6], -1)],
                *[([4, 6, 2], -1), ([4, 6, 2, 3], -1)],
            ],
        ),
    ],
)
def test_examples_are_the_whole_history_and_a_continuation_of_it(prompts, expected):
    """What followed 4 and 2 elsewhere, and is not known already, is 6 and 3; nothing followed 5."""
    histories, following = teacher_prompts(three_users(), prompts)
    found = [(one.tolist(), item) for one, item in zip(histories, following.tolist(), strict=True)]
    if prompts == 2:
        assert found[1][0][1] in (1, 2, 3, 4, 5, 6)
        found[1][0][1] = None
    assert found == expected


def test_further_examples_have_the_newest_items_as_next():
    for prompts in (3, 4, 9):
        histories, following = teacher_prompts(three_users(), prompts)
        known = [(one.tolist(), item) for one, item in zip(histories, following.tolist(), strict=True) if item >= 0]
        first = [([1, 2, 3], 4), ([1, 2], 3), ([1], 2), ([], 1)][: prompts - 2]
        second = [([4, 6], 2), ([4], 6), ([], 4)][: prompts - 2]
        assert known == [([], 5), *first, *second]
        assert len(histories) == len(known) + 2 * 3


def three_users():
    empty = np.zeros(0, np.int32)
    train = (empty, np.array([5]), np.array([1, 2, 3, 4]), np.array([4, 6, 2]))
    catalog = Catalog.from_codes(np.arange(8)[:, None])
    return Dataset("toy", catalog, train, (empty,) * 4, (empty,) * 4)
