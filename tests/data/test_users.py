"""Users with held-out items: who they are, and what was known of them."""

from atspeed_jax.data.users import held_out_users
from evaluations import make_evaluation


def test_users_are_those_with_items_and_know_what_came_before(toy, tmp_path):
    dataset = make_evaluation(toy, tmp_path).dataset
    test, valid = held_out_users(dataset, "test"), held_out_users(dataset, "valid")
    assert test.users.tolist() == [0, 1, 3, 4, 5]
    assert valid.users.tolist() == [0, 3]
    assert [items.tolist() for items in test.histories] == [[0, 1, 2, 3, 6, 4], [], [5, 5, 0], [], [6]]
    assert [items.tolist() for items in valid.histories] == [[0, 1, 2, 3, 6], [5, 5]]
    assert [items.tolist() for items in test.truths] == [[6, 2], [1], [3], [0], [2]]


def test_a_choice_is_fixed_in_order_and_at_most_everyone(toy, tmp_path):
    everyone = make_evaluation(toy, tmp_path).everyone
    chosen = everyone.sample(3, 1)
    assert chosen.users.tolist() == sorted(chosen.users.tolist())
    assert len(set(chosen.users.tolist())) == 3
    assert chosen.users.tolist() == everyone.sample(3, 1).users.tolist()
    assert {tuple(everyone.sample(3, seed).users.tolist()) for seed in range(9)} > {tuple(chosen.users.tolist())}
    for row, user in enumerate(chosen.users):
        place = everyone.users.tolist().index(user)
        assert chosen.truths[row] is everyone.truths[place]
        assert chosen.histories[row] is everyone.histories[place]
    assert everyone.sample(99, 1).users.tolist() == everyone.users.tolist()
    assert make_evaluation(toy, tmp_path, users=2).everyone.users.tolist() == everyone.sample(2, 0).users.tolist()
