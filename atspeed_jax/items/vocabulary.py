"""Tokens of a pretrained model, renumbered so that item codes stand behind all words.

A tokenizer has the codes in whatever order they were added, such as <a_10> before
<a_2>. Behind its tokens a model may have further embedding rows, which are padding. A
decoder reads the codes of a level as one range of tokens (`Catalog.level_offsets`). So
tokens are renumbered: words and padding rows first, then the codes, level by level.
Weights are renumbered when they are loaded, and back when they are saved
(models/weights.py), so nothing between the two knows of another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Which embedding row of a pretrained model each token is.

    Attributes:
      rows: [V] int32, the row of each token; a permutation of 0..V-1. The tokenizer of
        the model calls the token by the number of the row.
      texts: per level the text of each code.
      trained: whether the model has been trained with the codes. If not, their rows are
        new.
    """

    rows: np.ndarray
    texts: tuple[tuple[str, ...], ...]
    trained: bool

    @cached_property
    def _token_of_row(self) -> np.ndarray:
        tokens = np.empty(len(self.rows), np.int32)
        tokens[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return tokens

    def tokens(self, rows) -> np.ndarray:
        """Returns the tokens [...] int32 of `rows` [...], a tokenizer's numbers."""
        return self._token_of_row[np.asarray(rows, np.int64)]

    @property
    def codes(self) -> int:
        """Number of code tokens, of all levels."""
        return sum(map(len, self.texts))

    @property
    def loaded_rows(self) -> np.ndarray:
        """[W] int32, rows that the weights of the model are read from: those of all
        tokens, or of the words alone if the rows of the codes are new.
        """
        return self.rows if self.trained else self.rows[: len(self.rows) - self.codes]

    def exchanged(self, one: int, other: int) -> Vocabulary:
        """Returns the vocabulary in which two words have changed places."""
        rows = self.rows.copy()
        rows[[one, other]] = rows[[other, one]]
        return Vocabulary(rows, self.texts, self.trained)
