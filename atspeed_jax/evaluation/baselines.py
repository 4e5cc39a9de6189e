"""Two recommenders without a model, to be beaten: popularity and item co-visitation.

Both are counted on train alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.sparse as sparse

from atspeed_jax.items.filters import first_unknown
from atspeed_jax.utils.ranges import Items, Range, check_ranges

_USERS_AT_ONCE = 4096  # rows of the score matrix held in memory at a time


class BaselineError(ValueError):
    """Settings or interactions that no baseline can be made from."""


@dataclass(frozen=True)
class CovisitationConfig:
    """How co-visitation counts.

    Attributes:
      window: farthest distance of two items that count as visited together.
      history: newest items of a user that vote.
      decay: weight of an item's vote relative to that of the next newer item, above 0
        and at most 1.

    Raises:
      RangeError: a value outside its range.
    """

    window: Items
    history: Items
    decay: Annotated[float, Range(0, 1, "(]")]

    def __post_init__(self):
        check_ranges(self)


# Of 54 symmetric variants tried (weight 1 or 1/d, three normalizations, nine decays),
# this one gives Beauty's reference figures, Recall@10 0.0191 and NDCG@10 0.0127 with
# seen items removed.
COVISITATION = CovisitationConfig(window=5, history=20, decay=0.9)


def popularity_lists(
    popularity: np.ndarray, histories: Sequence[np.ndarray], *, k: int, remove_seen: bool
) -> np.ndarray:
    """Lists the items with the most train interactions, ties by item number.

    Args:
      popularity: [items] train interactions.
      histories: N arrays of all items that a user is known to have seen.
      k: length of the lists.
      remove_seen: whether a list leaves out its user's history.

    Returns:
      [N, k] int64; -1 where no item is left.

    Raises:
      BaselineError: k < 1, or a history with an item that `popularity` does not have.
    """
    order = _by_popularity(popularity, k)
    _check_known(histories, len(popularity))
    nothing = np.empty(0, np.int64)
    rows = [_complete(nothing, order, seen if remove_seen else nothing, k) for seen in histories]
    return np.stack(rows).reshape(-1, k)


def covisitation_similarity(
    train: Sequence[np.ndarray], popularity: np.ndarray, config: CovisitationConfig
) -> sparse.csr_array:
    """How often two items stand close together in train sequences, normalized.

    Each pair of different items at distance d = 1..window in a user's sequence counts 1
    / d. The sum is divided by sqrt(popularity of one item * popularity of the other),
    as in a cosine.

    Args:
      train: item sequences in time order.
      popularity: [items] train interactions.
      config: its window counts.

    Returns:
      [items, items] float64, symmetric.
    """
    items = len(popularity)
    first, second, weight = [], [], []
    for distance in range(1, config.window + 1):
        for sequence in train:
            if len(sequence) > distance:
                first.append(sequence[:-distance])
                second.append(sequence[distance:])
                weight.append(np.full(len(sequence) - distance, 1.0 / distance))
    if not first:
        return sparse.csr_array((items, items))
    first, second, weight = np.concatenate(first), np.concatenate(second), np.concatenate(weight)
    different = first != second
    first, second, weight = first[different], second[different], weight[different]
    weight = weight / np.sqrt(popularity[first].astype(float) * popularity[second])
    one_way = sparse.coo_array((weight, (first, second)), shape=(items, items)).tocsr()
    return (one_way + one_way.T).tocsr()


def covisitation_lists(
    train: Sequence[np.ndarray],
    popularity: np.ndarray,
    histories: Sequence[np.ndarray],
    config: CovisitationConfig,
    *,
    k: int,
    remove_seen: bool,
) -> np.ndarray:
    """Lists the items most co-visited with the newest items of each history.

    The score of an item is the sum of its similarity (`covisitation_similarity`) to
    each of the user's newest `config.history` items, times decay^age, age 0 for the
    newest. Ties go to the more popular item, then to the lower number. Entries without
    a co-visited item are filled by popularity.

    Args:
      train: item sequences in time order.
      popularity: [items] train interactions.
      histories: N arrays of all items seen, in time order.
      config: how co-visitation counts.
      k: length of the lists.
      remove_seen: whether a list leaves out its user's history.

    Returns:
      [N, k] int64; -1 where no item is left.

    Raises:
      BaselineError: k < 1, or a history with an item that `popularity` does not have.
    """
    order = _by_popularity(popularity, k)
    _check_known(histories, len(popularity))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    similarity, nothing = covisitation_similarity(train, popularity, config), np.empty(0, np.int64)
    lists = np.full((len(histories), k), -1, np.int64)
    for start in range(0, len(histories), _USERS_AT_ONCE):
        block = histories[start : start + _USERS_AT_ONCE]
        scores = sparse.csr_array(_votes(block, len(popularity), config) @ similarity)
        for row, seen in enumerate(block):
            entries = slice(scores.indptr[row], scores.indptr[row + 1])
            items, values = scores.indices[entries], scores.data[entries]
            best = items[np.lexsort((rank[items], np.negative(values)))]
            lists[start + row] = _complete(best, order, seen if remove_seen else nothing, k)
    return lists


def _votes(histories: Sequence[np.ndarray], items: int, config: CovisitationConfig) -> sparse.csr_array:
    """[N, items]: decay^age of each of a user's newest items; an item that occurs twice
    votes twice.
    """
    newest = [np.asarray(history, np.int64)[-config.history :] for history in histories]
    users = np.repeat(np.arange(len(newest)), [len(history) for history in newest])
    ages = np.concatenate([np.arange(len(history))[::-1] for history in newest])
    votes = config.decay ** ages.astype(float)
    return sparse.coo_array((votes, (users, np.concatenate(newest))), shape=(len(newest), items)).tocsr()


def _check_known(histories: Sequence[np.ndarray], items: int) -> None:
    """Raises BaselineError for an item that the catalog does not have."""
    if (stray := first_unknown(histories, items)) is not None:
        user, item = stray
        raise BaselineError(
            f"history {user} holds item {item}; the catalog has items 0 to {items - 1}, so leave it out"
        )


def _by_popularity(popularity: np.ndarray, k: int) -> np.ndarray:
    """All items, most popular first, ties by item number."""
    if k < 1:
        raise BaselineError(f"k = {k}, expected a list length of at least 1")
    return np.argsort(-np.asarray(popularity, np.int64), kind="stable")


def _complete(best: np.ndarray, order: np.ndarray, excluded: np.ndarray, k: int) -> np.ndarray:
    """[k]: the first items of `best`, then of `order`, without repeats or `excluded`
    items; -1 where no item is left.
    """
    # k + len(excluded) of each are enough, whatever is excluded or repeated.
    best = np.asarray(best, np.int64)[: k + len(excluded)]
    best = best[~np.isin(best, excluded)][:k]
    more = order[: k + len(excluded) + len(best)]
    more = more[~np.isin(more, excluded) & ~np.isin(more, best)]
    chosen = np.concatenate((best, more))[:k]
    return np.concatenate((chosen, np.full(k - len(chosen), -1, np.int64)))
