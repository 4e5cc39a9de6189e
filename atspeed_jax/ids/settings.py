"""Settings of ids, and the defaults for a catalog's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.utils.ranges import Range, Seed, check_ranges

METHODS = ("kmeans", "balanced", "rqvae")
COLLISIONS = ("keep", "further", "move")
MAX_CODEBOOK = 8_192

_FEW_ITEMS = 2_000  # below, three levels tell all items apart
_LEAST_CODES, _MOST_CODES, _MANY_CODES = 8, 256, 2_048
_MANY_ITEMS = 1_000_000


@dataclass(frozen=True)
class IdsConfig:
    """How ids are made.

    Attributes:
      method: "kmeans" (residual k-means), "balanced" (the same, with codes of about
        equal size) or "rqvae" (an autoencoder with residual codebooks).
      levels: L, codes of an id before a further one.
      codes: per level.
      collisions: what becomes of items with equal codes: "keep" lets them share an id,
        "further" adds a code, "move" gives all but one another last code.
      vectors: "auto", "vector" (the column of items.parquet), "text", "cooccurrence",
        "text+cooccurrence", or a file.
      text: "auto", "tfidf", or a model of sentence-transformers.
      dimensions: of the vectors of texts and of co-occurrence.
      seed: of everything.
    """

    method: Literal["kmeans", "balanced", "rqvae"] = "kmeans"
    levels: Annotated[int, Range(1, MAX_LENGTH)] = 4
    codes: Annotated[int, Range(2, MAX_CODEBOOK)] = 256
    collisions: Literal["keep", "further", "move"] = "move"
    vectors: str = "auto"
    text: str = "auto"
    dimensions: Annotated[int, Range(1, 4_096)] = 64
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)
        if self.collisions == "further" and self.levels == MAX_LENGTH:
            raise ValueError(
                f"levels={self.levels} with collisions=further: an id has at most {MAX_LENGTH} codes with the further "
                f"one; set levels to {MAX_LENGTH - 1} or less"
            )


def default_size(items: int) -> tuple[int, int]:
    """Chooses levels and codes for a catalog.

    The codes of a level are about twice the square root of the items, a power of two, so
    that a code of the first level has many items and two levels nearly tell them apart.

    Args:
      items: of the catalog.

    Returns:
      (levels, codes per level).
    """
    most = _MANY_CODES if items >= _MANY_ITEMS else _MOST_CODES
    codes = 1 << round(math.log2(max(2 * math.sqrt(items), 1)))
    return (3 if items < _FEW_ITEMS else 4), min(max(codes, _LEAST_CODES), most)
