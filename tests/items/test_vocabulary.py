import numpy as np

from atspeed_jax.items.vocabulary import Vocabulary

TEXTS = (("<a_0>", "<a_1>"), ("<b_0>",))


def test_rows_and_tokens():
    vocabulary = Vocabulary(np.array([0, 3, 4, 1, 5, 2]), TEXTS, trained=True)
    assert vocabulary.codes == 3
    assert vocabulary.tokens([[3, 2], [0, 5]]).tolist() == [[1, 5], [0, 4]]
    assert vocabulary.loaded_rows.tolist() == [0, 3, 4, 1, 5, 2]
    assert Vocabulary(vocabulary.rows, TEXTS, trained=False).loaded_rows.tolist() == [0, 3, 4]


def test_two_words_change_places():
    vocabulary = Vocabulary(np.array([0, 3, 4, 1, 5, 2]), TEXTS, trained=False)
    assert vocabulary.exchanged(0, 2).rows.tolist() == [4, 3, 0, 1, 5, 2]
    assert vocabulary.rows.tolist() == [0, 3, 4, 1, 5, 2]
