import numpy as np

from atspeed_jax.evaluation import examples as module
from atspeed_jax.evaluation.evaluate import Evaluation
from evaluations import decoded_lists, make_evaluation


def test_users_with_a_history_are_drawn_by_seed(toy, tmp_path):
    users = make_evaluation(toy, tmp_path).everyone
    with_history = [row for row, history in enumerate(users.histories) if len(history)]
    assert module.example_rows(users, 9, 0) == with_history
    drawn = module.example_rows(users, 2, 0)
    assert drawn == module.example_rows(users, 2, 0) == sorted(drawn)
    assert set(drawn) < set(with_history)
    assert len({tuple(module.example_rows(users, 2, seed)) for seed in range(9)}) > 1


def test_an_example_by_hand(toy, tmp_path):
    """Items 4 and 5 share id 4: what the user chose later stands for it, else the more popular item."""
    evaluation = make_evaluation(toy, tmp_path, test=([6, 4], [1], [], [3], [0], [2]))
    shared = int(toy.catalog.id_of_item[4])
    ids, scores = np.array([[shared, 0, -1]] * 5), np.array([[-0.5, -1.0, -np.inf]] * 5)
    dataset, users = evaluation.dataset, evaluation.everyone
    first, third = module.examples(dataset, users, ids, scores, [0, 2])
    assert first == {
        "user": 0,
        "history": [{"item": n, "codes": toy.catalog.codes[n].tolist()} for n in (0, 1, 2, 3, 6, 4)],
        "list": [
            {"item": 4, "codes": [2, 1], "score": -0.5, "found": True},
            {"item": 0, "codes": [0, 0], "score": -1.0, "found": False},
        ],
        "later": [{"item": n, "codes": toy.catalog.codes[n].tolist()} for n in (6, 4)],
    }
    assert third["user"] == users.users[2]
    popular = 5 if dataset.popularity[5] > dataset.popularity[4] else 4
    assert third["list"][0]["item"] == popular
    assert not third["list"][0]["found"]


def test_examples_are_remembered(toy, tmp_path, monkeypatch):
    evaluation, asked = make_evaluation(toy, tmp_path), []
    count = len(evaluation.everyone.users)
    lists = decoded_lists(ids=np.zeros((count, 2), int), score=np.zeros((count, 2)))
    monkeypatch.setattr(Evaluation, "decoded", lambda self, setting, users: asked.append(setting) or lists)
    first = module.examples_of(evaluation)
    assert module.examples_of(evaluation) == first
    assert [setting.search.beams for setting in asked] == [evaluation.config.list_size]
