"""What ids are worth: a target is trained on the same interactions with ids made in several ways.

The interactions are synthetic (`data.simulate`): users like clusters of items, and an
item has a vector near the center of its cluster. The text of an item has a word for
each dimension in which the vector stands out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atspeed_jax.data.sources import SPLITS, Source, synthetic_world
from atspeed_jax.data.users import held_out_users
from atspeed_jax.evaluation import metrics
from atspeed_jax.evaluation.validate import BEAMS, CUT
from atspeed_jax.ids.collisions import groups
from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.ids.rqvae import train_rqvae
from atspeed_jax.ids.text import TfidfText
from atspeed_jax.items.catalog import expand_ids
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.settings import Setting

WAYS = ("world", "kmeans", "rqvae", "text", "random")
COMPARED = (("kmeans", "world"), ("rqvae", "kmeans"), ("text", "random"))
STANDS_OUT = 0.5  # standard deviations from the mean of a dimension
SAMPLES = 2_000  # of the bootstrap


def measure_ids_quality(
    config: ExperimentConfig, seeds: range, workdir: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Trains and measures a target for each way and seed.

    Args:
      config: of synthetic data and a target; its seed of the data is replaced.
      seeds: of the data and of the ids.
      workdir: gets a run for each target; finished ones are not trained again.
      say: takes a line per target.

    Returns:
      A row per way, over all test users of all seeds. recall@10, ndcg@10: of lists by
      plain beam search, seen items kept. collided: share of items that share their
      codes. compared_with: another way, or None; ratio: of recall@10 to that way's;
      difference, low, high: of recall@10, paired by user, with a 95 % interval.
    """
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    collided: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in seeds:
        assert config.data.synthetic is not None, "the config has synthetic data"
        source, vectors = synthetic_world(dataclasses.replace(config.data.synthetic, seed=seed))
        for way in WAYS:
            codes = codes_of(way, source, vectors, seed)
            measured = _measured(config, dataclasses.replace(source, codes=codes), workdir / f"{way}_{seed}")
            found[way].append(measured)
            collided[way].append(float((np.bincount(groups(codes))[groups(codes)] > 1).mean()))
            say(f"{way}, seed {seed}: recall@{CUT} {measured[f'recall@{CUT}'].mean():.4f}")
    together = {way: _joined(parts) for way, parts in found.items()}
    return [_row(way, together, float(np.mean(collided[way]))) for way in WAYS]


def codes_of(way: str, source: Source, vectors: np.ndarray, seed: int) -> np.ndarray:
    """Makes ids of as many codes as those of the source.

    Args:
      way: one of WAYS. "world" takes the ids of the source.
      source: of the interactions.
      vectors: [items, D] of its items.
      seed: of the ids.

    Returns:
      [items, L] int32.
    """
    sizes = source.catalog.level_sizes
    if way == "world":
        return source.codes
    if way == "random":
        rng = np.random.default_rng(seed)
        return np.stack([rng.integers(size, size=len(vectors)) for size in sizes], 1).astype(np.int32)
    if way == "text":
        texts = texts_of(vectors)
        vectors = TfidfText.fit(texts, 64, seed)(texts)
    if way == "rqvae":
        return train_rqvae(vectors.astype(np.float32), sizes, seed=seed)[2]
    return residual_kmeans(vectors.astype(np.float32), sizes, seed=seed)[1]


def texts_of(vectors: np.ndarray) -> list[str]:
    """Describes vectors in words: "high3 low7" for one that is high in dimension 3 and
    low in dimension 7.
    """
    scaled = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-9)
    words = []
    for row in scaled:
        sides = [("high" if value > 0 else "low", n) for n, value in enumerate(row) if abs(value) > STANDS_OUT]
        words.append(" ".join(f"{side}{n}" for side, n in sides) or "plain")
    return words


def _measured(config: ExperimentConfig, source: Source, place: Path) -> dict[str, np.ndarray]:
    """Trains a target on a source, and measures its lists for all test users.

    Returns:
      measure -> [users].
    """
    data = place.with_name(f"{place.name}_data")
    _write(source, data)
    settings = dataclasses.replace(config.data, source="atspeed", synthetic=None)
    run = Run(dataclasses.replace(config, data=settings), place, data)
    run.data()
    run.target()
    users = held_out_users(run.dataset, "test")
    shape = run.serve.evaluate.batch_shape(config.data.history)
    decode = run.decoders(None).build(Setting.beam_search(BEAMS, "vocab"))
    decoded = decode_users(decode, users.batches(run.dataset, shape), len(users.users))
    lists = expand_ids(decoded.ids, *run.catalog.items_by_id(run.dataset.popularity), CUT)
    return metrics.measure_lists(lists, users.truths, (CUT,), items=run.catalog.items)


def _write(source: Source, directory: Path) -> None:
    """Writes a source in AtSpeed's layout, where it is not written yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = [" ".join(map(str, (user + 1, *(items + 1)))) for user, items in enumerate(getattr(source, split))]
        (directory / f"sequential_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    index = {str(item): codes for item, codes in enumerate(source.codes.tolist())}
    (directory / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The measures of all seeds, one user behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _row(way: str, found: Mapping[str, Mapping[str, np.ndarray]], collided: float) -> dict[str, Any]:
    """The row of a way."""
    recall = f"recall@{CUT}"
    row = {"way": way, "collided": collided} | {name: float(values.mean()) for name, values in found[way].items()}
    other = dict(COMPARED).get(way)
    row |= dict.fromkeys(("compared_with", "ratio", "difference", "low", "high"))
    if other is not None:
        apart = metrics.compare(found[way], found[other], samples=SAMPLES, seed=0)
        low, high = apart["intervals"][recall]
        ratio = row[recall] / max(float(found[other][recall].mean()), 1e-12)
        row |= {"compared_with": other, "ratio": ratio, "difference": apart[recall], "low": low, "high": high}
    return row
