"""Vectors of items: given ones, of texts, of co-occurrence, or of both together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atspeed_jax.ids.cooccurrence import cooccurrence_vectors
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.given import column_vectors, file_vectors
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ids.tables import Interactions, ItemTable
from atspeed_jax.ids.text import TextEncoder, fit_text

AUTO, GIVEN, TEXT, COOCCURRENCE, BOTH = "auto", "vector", "text", "cooccurrence", "text+cooccurrence"
KINDS = (AUTO, GIVEN, TEXT, COOCCURRENCE, BOTH)
_RIDGE = 1.0  # of the regression from texts to co-occurrence, per item


@dataclass(frozen=True, eq=False)
class VectorSpace:
    """How the vectors of items are made; frozen, so that new items fit in.

    Attributes:
      kind: GIVEN, TEXT, COOCCURRENCE or BOTH.
      width: D of the vectors.
      encoder: of texts; None without them.
      bridge: [text dimensions + 1, dimensions of co-occurrence] float32, the regression
        that stands in for the co-occurrence of an item without interactions. None but
        for BOTH.
    """

    kind: str
    width: int
    encoder: TextEncoder | None = None
    bridge: np.ndarray | None = None

    def of_new(self, items: ItemTable, given: np.ndarray | None = None) -> np.ndarray:
        """Returns the vectors [items, D] of items without interactions.

        Args:
          items: new ones.
          given: [items, D], for GIVEN; None for the column vector.

        Raises:
          IdsError: vectors of co-occurrence, which need interactions; vectors of another
            width; texts or vectors that are missing.
        """
        if self.kind == COOCCURRENCE:
            raise IdsError("the ids were made of co-occurrence alone, and a new item has no interactions")
        if self.kind == GIVEN:
            found = column_vectors(items) if given is None else given
            if found.shape[1] != self.width:
                raise IdsError(
                    f"{items.file}: vectors of {found.shape[1]} numbers, but the codebooks were made of "
                    f"vectors of {self.width}; give vectors of the same model"
                )
            return found
        if self.encoder is None:
            raise IdsError(f"vectors of {self.kind} without an encoder of texts; make the ids again")
        without = [name for name, text in zip(items.names, items.texts, strict=True) if not text]
        if without:
            raise IdsError(
                f"{items.file}: item {without[0]!r} has no text ({len(without)} such items), and the ids were made of "
                "texts; give it a title or text, or remove it"
            )
        return self.of_texts(self.encoder(items.texts))

    def of_texts(self, texts: np.ndarray) -> np.ndarray:
        """Returns vectors of items without interactions, from the vectors of texts."""
        return texts if self.bridge is None else np.concatenate([texts, bridged(texts, self.bridge)], axis=1)


def make_vectors(
    config: IdsConfig, items: ItemTable, log: Interactions, say: Callable[[str], None]
) -> tuple[np.ndarray, VectorSpace]:
    """Makes the vectors of all items.

    Args:
      config: what they are made of.
      items: of the catalog.
      log: its interactions; those of the training split are used.
      say: takes a line for what was chosen.

    Returns:
      [items, D] float32, and the frozen space.

    Raises:
      IdsError: what the vectors are made of is missing or wrong.
    """
    kind = choose(items, say) if config.vectors == AUTO else config.vectors
    if kind not in KINDS:
        given = file_vectors(Path(kind), items)
        return given, VectorSpace(GIVEN, given.shape[1])
    if kind == GIVEN:
        given = column_vectors(items)
        return given, VectorSpace(GIVEN, given.shape[1])
    seen = np.zeros((len(items), 0), np.float32)
    if kind in (COOCCURRENCE, BOTH):
        seen = cooccurrence_vectors(log, len(items), config.dimensions, config.seed)
        alone = int((~seen.any(axis=1)).sum())
        say(f"vectors of co-occurrence: {seen.shape[1]} dimensions; {alone} items are in no training interaction")
    if kind == COOCCURRENCE:
        return seen, VectorSpace(COOCCURRENCE, seen.shape[1])
    encoder, texts = fit_text(items.texts, config.text, config.dimensions, config.seed, say)
    if kind == TEXT:
        return texts, VectorSpace(TEXT, texts.shape[1], encoder)
    bridge = fit_bridge(texts, seen)
    seen = np.where(seen.any(axis=1, keepdims=True), seen, bridged(texts, bridge))
    both = np.concatenate([texts, seen], axis=1)
    return both, VectorSpace(BOTH, both.shape[1], encoder, bridge)


def choose(items: ItemTable, say: Callable[[str], None]) -> str:
    """Chooses what vectors are made of, and says why."""
    if items.vectors is not None:
        say(f"--vectors={GIVEN}: {items.file.name} has a column of vectors")
        return GIVEN
    texts = sum(map(bool, items.texts))
    kind = BOTH if 2 * texts >= len(items) else COOCCURRENCE
    say(f"--vectors={kind}: {texts} of {len(items)} items have a text")
    if kind == COOCCURRENCE:
        say(f"new items cannot get such ids by --assign; for that, {ways_to_text(items)}")
    return kind


def ways_to_text(items: ItemTable) -> str:
    """Says how a catalog gets ids of texts, which new items can get too."""
    new = f"build_ids with --vectors={BOTH}"
    if any(items.texts):
        return f"run {new}"
    ingest = "in the checkout, launch.ingest with --items=FILE, to a new directory"
    return f"give texts of the items ({ingest}), then run {new} there"


def fit_bridge(texts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fits co-occurrence on texts by ridge regression, over items that have both.

    Args:
      texts: [items, T].
      seen: [items, C], 0 for an item without interactions.

    Returns:
      [T + 1, C] float32; the last row is the intercept.
    """
    have = seen.any(axis=1) & texts.any(axis=1)
    inputs = _with_one(texts[have]).astype(np.float64)
    gram = inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, inputs.T @ seen[have]).astype(np.float32)


def bridged(texts: np.ndarray, bridge: np.ndarray) -> np.ndarray:
    """Predicts co-occurrence [items, C] from the vectors of texts."""
    return (_with_one(texts) @ bridge).astype(np.float32)


def _with_one(texts: np.ndarray) -> np.ndarray:
    return np.concatenate([texts, np.ones((len(texts), 1), texts.dtype)], axis=1)


def check_kind(vectors: str, known: Sequence[str] = KINDS) -> None:
    """Checks a setting of vectors before any long work.

    Raises:
      IdsError: neither a kind nor an existing file.
    """
    place = Path(vectors.partition(":")[0])
    if vectors not in known and not place.is_file():
        raise IdsError(f"--vectors={vectors}: expected {', '.join(known)}, or a file (.npy, .parquet, .safetensors)")
