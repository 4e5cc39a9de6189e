"""Vectors of items by who interacted with them: items of the same users are near."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.tables import TRAIN, Interactions, unit_rows


def cooccurrence_vectors(log: Interactions, items: int, dimensions: int, seed: int) -> np.ndarray:
    """Returns a vector per item, from the training interactions alone.

    The matrix of users and items, each entry divided by the square roots of the
    interactions of its user and of its item, is decomposed by a truncated SVD. The
    first direction says how popular an item is and is left out.

    Args:
      log: all interactions.
      items: of the catalog.
      dimensions: D; fewer where there are fewer users or items.
      seed: of the SVD.

    Returns:
      [items, D] float32 of length 1; of length 0 for an item without interactions.

    Raises:
      IdsError: no training interactions.
    """
    train = log.split == TRAIN
    if not train.any():
        raise IdsError("no training interactions (split 0); co-occurrence needs some: give texts or vectors instead")
    users, rows = np.unique(log.users[train], return_inverse=True)
    shape = (items, len(users))
    seen = sparse.csr_array((np.ones(len(rows), np.float32), (log.items[train], rows)), shape=shape)
    seen.data[:] = 1  # repeats of a pair count once
    of_item, of_user = (np.maximum(np.asarray(seen.sum(axis=axis)).reshape(-1), 1) for axis in (1, 0))
    scaled = sparse.diags_array(of_item**-0.5) @ seen @ sparse.diags_array(of_user**-0.5)
    size = min(dimensions + 1, *shape)
    left, values, _ = randomized_svd(sparse.csr_matrix(scaled), size, random_state=seed)
    first = 1 if size > 1 else 0
    return unit_rows(left[:, first:] * values[first:])
