"""What becomes of items whose codes are equal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atspeed_jax.ids.codebooks import Codebooks
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import MAX_CODEBOOK
from atspeed_jax.items.catalog import MAX_LENGTH


def resolve(codes: np.ndarray, latents: np.ndarray, codebooks: Codebooks, how: str, fixed: int = 0) -> np.ndarray:
    """Returns ids in which collisions are resolved.

    Args:
      codes: [N, L] of the nearest codes. With `fixed` and how="further", the first rows
        have [L + 1] codes each and come as `codes[:fixed]` of a matrix [N, L + 1].
      latents: [N - fixed, D], what the codebooks quantize, of the rows behind `fixed`.
      codebooks: that gave the codes.
      how: "keep", "further" or "move".
      fixed: number of first rows whose ids stay.

    Returns:
      [N, L] int32, or [N, L + 1] for "further". The first `fixed` rows are as given.

    Raises:
      IdsError: more items than the codes can tell apart.
    """
    if how == "keep":
        return codes
    if how == "further":
        return further_codes(codes, codebooks.levels, fixed)
    check_room(len(codes), tuple(map(len, codebooks.centers)))
    return moved(codes, latents, codebooks, fixed)


def check_room(items: int, sizes: tuple[int, ...]) -> None:
    """Checks that the codes can tell the items apart.

    Args:
      items: number of items.
      sizes: codes of each level.

    Raises:
      IdsError: more items than ids.
    """
    room = int(np.prod([int(size) for size in sizes], dtype=object))
    if items > room:
        raise IdsError(
            f"{items} items, but {len(sizes)} levels of {sizes[0]} codes tell only {room} apart; "
            f"{_enough(items, len(sizes), sizes[0])} or take --collisions=keep"
        )


def _enough(items: int, levels: int, codes: int) -> str:
    """Names the least --levels and the least --codes, each alone, that tell items apart."""
    more = next((count for count in range(levels, MAX_LENGTH + 1) if codes**count >= items), None)
    larger = next((count for count in range(codes, MAX_CODEBOOK + 1) if count**levels >= items), None)
    said = [f"--{name}={value}" for name, value in (("levels", more), ("codes", larger)) if value is not None]
    return f"raise to {' or '.join(said)}," if said else "raise --levels and --codes,"


def groups(codes: np.ndarray) -> np.ndarray:
    """Returns a number per row, equal for equal rows."""
    number = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):
        number = np.unique(number * (MAX_CODEBOOK + 1) + codes[:, level], return_inverse=True)[1].reshape(-1)
    return number


def further_codes(codes: np.ndarray, levels: int, fixed: int) -> np.ndarray:
    """Returns ids [N, L + 1] with a last code that counts the items of equal codes.

    Args:
      codes: see `resolve`.
      levels: L.
      fixed: number of first rows that have a further code.

    Raises:
      IdsError: more than MAX_CODEBOOK items with equal codes.
    """
    group = groups(codes[:, :levels])
    given = codes[:fixed, levels] if fixed else np.zeros(0, np.int32)
    first = np.zeros(group.max() + 1, np.int64)  # free further code of each group
    np.maximum.at(first, group[:fixed], given.astype(np.int64) + 1)
    new = group[fixed:]
    order = np.argsort(new, kind="stable")
    starts = np.concatenate(([0], np.flatnonzero(np.diff(new[order])) + 1)) if len(new) else np.zeros(0, int)
    rank = np.arange(len(new)) - np.repeat(starts, np.diff(np.concatenate((starts, [len(new)]))))
    more = np.empty(len(new), np.int64)
    more[order] = rank
    more += first[new]
    if len(more) and more.max() >= MAX_CODEBOOK:
        raise IdsError(
            f"{more.max() + 1} items have equal codes, but a further code tells at most {MAX_CODEBOOK} apart; give "
            "these items texts or vectors that differ, or raise --levels or --codes"
        )
    last = np.concatenate([given, more]).astype(np.int32)
    return np.concatenate([codes[:, :levels], last[:, None]], axis=1).astype(np.int32)


@dataclass
class _Trie:
    """Prefixes of ids as numbers; new ones are added.

    Attributes:
      size: more than any code.
      keys: per depth the known prefixes, each parent * size + code, sorted.
      added: per depth the added prefixes, key -> number.
      full: (depth, number) of prefixes below which all ids are taken.
    """

    size: int
    keys: list[np.ndarray] = field(default_factory=list)
    added: list[dict[int, int]] = field(default_factory=list)
    full: set[tuple[int, int]] = field(default_factory=set)

    def child(self, depth: int, parent: int, code: int) -> int:
        """Returns the number of a prefix of `depth` + 1 codes; adds an unknown one."""
        key, keys = parent * self.size + code, self.keys[depth]
        place = int(np.searchsorted(keys, key))
        if place < len(keys) and keys[place] == key:
            return place
        return self.added[depth].setdefault(key, len(keys) + len(self.added[depth]))

    def free(self, parent: int, codes: int) -> np.ndarray:
        """Tells which of the last codes no item has, [codes] bool."""
        keys, added = self.keys[-1], self.added[-1]
        asked = parent * self.size + np.arange(codes)
        places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        taken = keys[places] == asked
        if added:
            taken |= np.fromiter((key in added for key in asked.tolist()), bool, codes)
        return ~taken

    def nearest(self, parent: int, left: np.ndarray, codebooks: Codebooks, depth: int) -> list[int] | None:
        """Takes the nearest free id below a prefix.

        Args:
          parent: number of the prefix.
          left: [D], what its codes leave unexplained.
          codebooks: of all levels.
          depth: codes of the prefix.

        Returns:
          the codes behind the prefix; None if all ids are taken.
        """
        if (depth, parent) in self.full:
            return None
        preferred, last = _by_distance(left, codebooks, depth), depth == codebooks.levels - 1
        if last:
            preferred = preferred[self.free(parent, len(preferred))[preferred]]
        for code in preferred.tolist():
            number = self.child(depth, parent, code)
            if last:
                return [code]
            below = self.nearest(number, left - codebooks.centers[depth][code], codebooks, depth + 1)
            if below is not None:
                return [code, *below]
        self.full.add((depth, parent))
        return None


def moved(codes: np.ndarray, latents: np.ndarray, codebooks: Codebooks, fixed: int) -> np.ndarray:
    """Returns ids [N, L] of which no two are equal.

    Of items with equal codes the one nearest to its centers stays. Each other one gets
    the nearest last code that is free. If all last codes of its prefix are taken, the
    code before the last one moves too, and so on.

    Args:
      codes, latents, codebooks, fixed: see `resolve`; not more items than ids.
    """
    codes = codes.copy()
    trie, parents = _Trie(MAX_CODEBOOK + 1), [np.zeros(len(codes), np.int64)]
    for level in range(codes.shape[1]):
        keys, number = np.unique(parents[-1] * trie.size + codes[:, level], return_inverse=True)
        trie.keys.append(keys)
        trie.added.append({})
        parents.append(number.reshape(-1).astype(np.int64))
    error = np.zeros(len(codes))
    error[fixed:] = ((latents - codebooks.reconstruct(codes[fixed:])) ** 2).sum(axis=1)
    error[:fixed] = -1  # they stay
    order = np.lexsort((np.arange(len(codes)), error, parents[-1]))
    repeats = np.concatenate(([False], np.diff(parents[-1][order]) == 0))
    movers = order[repeats & (order >= fixed)]
    for item in movers[np.argsort(error[movers], kind="stable")].tolist():
        for depth in reversed(range(codebooks.levels)):
            left = latents[item - fixed] - codebooks.reconstruct(codes[item : item + 1], depth)[0]
            found = trie.nearest(int(parents[depth][item]), left, codebooks, depth)
            if found is not None:
                codes[item, depth:] = found
                break
    return codes


def _by_distance(left: np.ndarray, codebooks: Codebooks, level: int) -> np.ndarray:
    """Returns the codes of a level, nearest to a vector [D] first."""
    centers = codebooks.centers[level]
    return np.argsort((centers**2).sum(axis=1) - 2 * centers @ left + codebooks.prices[level], kind="stable")
