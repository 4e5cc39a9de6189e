"""How good ids are: collisions, use of the codes, error, neighbors, untrained items."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.manifold import TSNE

from atspeed_jax.ids.build import Built
from atspeed_jax.ids.collisions import groups
from atspeed_jax.ids.tables import TEST, TRAIN

_NEIGHBORS_OF = 1_000  # items whose nearest neighbor is looked for
_CHUNK = 65_536  # items at once that they are compared with
_PICTURED = 2_000  # items of the PCA
_TSNE, _LEAST_TSNE = 600, 30  # items of the t-SNE
_COLLAPSED, _IDLE = 0.05, 0.5  # shares of codes in use that are warned of
_UNEVEN = 0.6  # share of the largest entropy
_MANY_COLLIDE, _LARGE_GROUP = 0.1, 50
_UNEXPLAINED, _IMPURE, _UNTRAINED = 0.9, 0.2, 0.2


@dataclass(frozen=True, eq=False)
class Health:
    """What a report on ids says.

    Attributes:
      figures: to be written as JSON.
      warnings: sentences about what looks wrong.
      maps: "PCA" and "t-SNE" -> the places of some items [n, 2], and their first codes.
    """

    figures: dict
    warnings: list[str]
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]]


def health(built: Built) -> Health:
    """Measures ids of a catalog.

    Args:
      built: the ids, with vectors and interactions.
    """
    codes, config = built.codes, built.model.config
    latents = built.model.latents(built.vectors)
    sizes = [config.codes] * config.levels + [int(codes[:, -1].max()) + 1] * (codes.shape[1] - config.levels)
    prefixes = prefixes_of(codes)
    figures = {
        "items": len(codes),
        "collided_before": collisions(groups(built.nearest))["collided_items"],
        **collisions(prefixes[-1]),
        "levels": [usage(codes[:, level], size) for level, size in enumerate(sizes)],
        "depths": branching(prefixes),
        "unexplained": unexplained(built, latents),
        "neighbors": neighbors(latents, prefixes, config.seed),
        "untrained": untrained(built),
    }
    return Health(figures, warnings(figures), maps(latents, codes[:, 0], config.seed))


def prefixes_of(codes: np.ndarray) -> list[np.ndarray]:
    """Numbers the first codes of each item [items, L], per depth 0..L (`collisions.groups`)."""
    return [groups(codes[:, :depth]) for depth in range(codes.shape[1] + 1)]


def collisions(ids: np.ndarray) -> dict:
    """Counts ids, items that share one, and the items of the largest group.

    Args:
      ids: [items] the number of each item's id.
    """
    counts = np.bincount(ids)
    return {
        "ids": len(counts),
        "collided_items": int(counts[counts > 1].sum()),
        "largest_group": int(counts.max()),
    }


def usage(codes: np.ndarray, size: int) -> dict:
    """Counts the codes of a level in use.

    Args:
      codes: [items] of the level.
      size: number of codes.

    Returns:
      codes, used; entropy_bits of a random item's code, and most_bits if all codes were
      equal; largest_of_mean: items of the largest code by those of the mean code;
      counts: items of every code, most first.
    """
    counts = np.sort(np.bincount(codes, minlength=size))[::-1]
    shares = counts[counts > 0] / len(codes)
    return {
        "codes": size,
        "used": len(shares),
        "entropy_bits": float(-(shares * np.log2(shares)).sum()) + 0.0,
        "most_bits": math.log2(min(size, len(codes))),
        "largest_of_mean": float(counts[0] * size / len(codes)),
        "counts": counts.tolist(),
    }


def branching(prefixes: Sequence[np.ndarray]) -> list[dict]:
    """Counts, per depth, the prefixes and the next codes of a prefix (`prefixes_of`)."""
    rows = []
    for depth, (parents, longer) in enumerate(itertools.pairwise(prefixes)):
        first = np.unique(longer, return_index=True)[1]  # an item of each longer prefix
        children = np.bincount(parents[first])
        rows.append(
            {"depth": depth, "prefixes": len(children), "children": float(children.mean()), "most": int(children.max())}
        )
    return rows


def unexplained(built: Built, latents: np.ndarray) -> list[float]:
    """Returns the mean squared error after each level, by the variance of the vectors."""
    books = built.model.codebooks
    variance = float(((latents - latents.mean(axis=0)) ** 2).sum())
    errors = []
    for levels in range(1, books.levels + 1):
        left = latents - books.reconstruct(built.codes[:, : books.levels], levels)
        errors.append(float((left**2).sum()) / variance if variance > 0 else 0.0)
    return errors


def neighbors(latents: np.ndarray, prefixes: Sequence[np.ndarray], seed: int) -> list[dict]:
    """Returns, per depth, how often an item shares the first codes of its nearest
    neighbor, and how often two random items share theirs.
    """
    items = len(latents)
    if items < 2:
        return []
    rng = np.random.default_rng(seed)
    some = rng.choice(items, min(items, _NEIGHBORS_OF), replace=False)
    low, nearest = np.full(len(some), np.inf), np.zeros(len(some), np.int64)
    for start in range(0, items, _CHUNK):
        block = latents[start : start + _CHUNK]
        distance = (block**2).sum(axis=1) - 2 * latents[some] @ block.T
        own = (some >= start) & (some < start + len(block))
        distance[np.flatnonzero(own), some[own] - start] = np.inf
        place = distance.argmin(axis=1)
        found = distance[np.arange(len(some)), place]
        nearest, low = np.where(found < low, place + start, nearest), np.minimum(found, low)
    rows = []
    for depth, group in enumerate(prefixes[1:], start=1):
        shares = np.bincount(group) / items
        same = group[some] == group[nearest]
        rows.append({"depth": depth, "share": float(same.mean()), "by_chance": float((shares**2).sum())})
    return rows


def untrained(built: Built) -> dict:
    """Returns the shares of test interactions, and of items of the test, that no
    training interaction is of; None without test interactions.
    """
    log = built.log
    trained = np.zeros(len(built.items), bool)
    trained[log.items[log.split == TRAIN]] = True
    tested = log.items[log.split == TEST]
    if not len(tested):
        return {"interactions": None, "items": None}
    return {"interactions": float((~trained[tested]).mean()), "items": float((~trained[np.unique(tested)]).mean())}


def warnings(figures: Mapping) -> list[str]:
    """Returns sentences about figures that look wrong.

    Args:
      figures: of `Health`.
    """
    said, items = [], figures["items"]
    for number, level in enumerate(figures["levels"], start=1):
        used, size = level["used"], min(level["codes"], items)
        if used <= max(1, _COLLAPSED * size) < size:
            said.append(f"level {number} uses {used} of {level['codes']} codes: collapsed")
        elif used < _IDLE * size:
            said.append(f"level {number} uses {used} of {level['codes']} codes: fewer codes would do")
        elif level["entropy_bits"] < _UNEVEN * level["most_bits"]:
            bits = f"{level['entropy_bits']:.1f} of {level['most_bits']:.1f} bits"
            said.append(f"level {number} is uneven ({bits}): a few codes hold most items, --method=balanced evens them")
    if figures["collided_items"] > _MANY_COLLIDE * items:
        said.append(f"{figures['collided_items']} of {items} items share their id: --collisions=move tells them apart")
    if figures["largest_group"] > _LARGE_GROUP:
        said.append(f"{figures['largest_group']} items share one id: their vectors may be equal, or texts missing")
    if figures["unexplained"][-1] > _UNEXPLAINED:
        said.append(f"the codes explain only {1 - figures['unexplained'][-1]:.0%} of the variance of the vectors")
    if figures["neighbors"] and figures["neighbors"][0]["share"] < _IMPURE:
        share = f"{figures['neighbors'][0]['share']:.0%}"
        said.append(f"only {share} of items share the first code with their nearest neighbor: ids say little")
    unknown = figures["untrained"]["interactions"]
    if unknown is not None and unknown > _UNTRAINED:
        said.append(f"{unknown:.0%} of test interactions are of items that are never trained on")
    return said


def maps(latents: np.ndarray, first: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Projects some items to the plane, see `Health.maps`; few items have no t-SNE."""
    some = np.random.default_rng(seed).permutation(len(latents))[:_PICTURED]
    centered = latents[some] - latents[some].mean(axis=0)
    directions = np.linalg.svd(centered, full_matrices=False)[2][:2]
    plane = centered @ directions.T
    if plane.shape[1] < 2:
        plane = np.concatenate([plane, np.zeros((len(plane), 1), plane.dtype)], axis=1)
    found, few = {"PCA": (plane, first[some])}, some[:_TSNE]
    if len(few) >= _LEAST_TSNE:
        tsne = TSNE(2, perplexity=min(30, len(few) // 3), init="random", max_iter=500, random_state=seed)
        found["t-SNE"] = tsne.fit_transform(latents[few]), first[few]
    return found
