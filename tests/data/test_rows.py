import pytest

from atspeed_jax.data.rows import Rows, joined

ITEMS = [5, 3, 5, 3, 9, 1, 2]
GROWING = [(ITEMS[:place], ITEMS[place]) for place in range(1, 7)]
CUT = [(ITEMS[max(0, place - 3) : place], ITEMS[place]) for place in range(1, 7)]


@pytest.mark.parametrize(
    ("rows", "sequences"),
    [
        (GROWING, [ITEMS]),
        (GROWING[::-1], [ITEMS]),
        (GROWING * 2, [ITEMS]),
        (CUT, [ITEMS]),
        ([GROWING[3], GROWING[0]], [ITEMS[:5]]),
        ([([1, 2], 3), ([7], 8)], [[1, 2, 3], [7, 8]]),
        ([([], 4), ([4], 5)], [[4, 5]]),
        ([([], 4)], [[4]]),
        ([], []),
    ],
)
def test_rows_of_a_user_are_joined_to_the_sequences_they_were_cut_from(rows, sequences):
    assert joined(rows) == sequences


def test_targets_by_user_keep_the_order_of_the_rows():
    rows = Rows.of([(2, [0], 7), (0, [], 3), (2, [0, 7], 1)])
    assert len(rows) == 3
    assert [targets.tolist() for targets in rows.targets_by_user(4)] == [[3], [], [7, 1], []]
    assert [history.dtype for history in rows.histories] == ["int32"] * 3
