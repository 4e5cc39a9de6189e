"""What the model reads of a user, BOS and the codes of the newest items, and what it is to predict in training."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from atspeed_jax.items.catalog import Catalog


def prompt_tokens(catalog: Catalog, items, history: int) -> np.ndarray:
    """Tokens [1 + L * n] int32: BOS, then the codes of the newest n = min(len(items), history) of `items` (time order).

    An empty history gives BOS alone. Raises CatalogError for an unknown item, ValueError for a negative `history`.
    """
    if history < 0:
        raise ValueError(f"history is {history}; it is a number of items, 0 or more.")
    items = np.asarray(items, np.int32)
    newest = items[max(0, len(items) - history) :]
    return np.concatenate((np.array([catalog.bos], np.int32), catalog.tokens(newest).reshape(-1)))


def next_codes(batch) -> tuple[Array, Array]:
    """The token after each token of a training row, and whether it is to be predicted, both [B, T].

    batch: "tokens" and "predict" [B, T] (`batches.train_batches`). Padding never counts: it is never marked. Targets
    are shifted, not the logits: slicing logits [B, T, V] costs a padded copy of them in the gradient.
    """
    return jnp.roll(batch["tokens"], -1, 1), jnp.roll(batch["predict"], -1, 1).at[:, -1].set(False)
