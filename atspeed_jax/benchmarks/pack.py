"""Packs a trained run into the file that a bare machine reads (`benchmarks.pair`)."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.prompts import shared_head
from atspeed_jax.data.users import held_out_users
from atspeed_jax.runs.trained import RunView


def pair_of_run(run: RunView, users: int) -> Pair:
    """Takes models, ids and the prompts of validation users out of a trained run.

    Args:
      run: with trained models.
      users: validation users at most, drawn by the seed of the evaluation.
    """
    catalog, evaluate = run.dataset.catalog, run.serve.evaluate
    chosen = held_out_users(run.dataset, "valid").sample(users, evaluate.seed)
    shape = BatchShape(run.config.data.history, (max(evaluate.buckets),), 1)
    batches = chosen.batches(run.dataset, shape)
    order = np.argsort(np.concatenate([batch["row"] for batch in batches]))
    return Pair(
        target=_to_decode(run.target_model),
        target_params=jax.device_get(run.target_params),
        draft=_to_decode(run.draft_model),
        draft_params=jax.device_get(run.draft_params),
        id_tokens=np.asarray(catalog.id_tokens),
        id_counts=np.bincount(catalog.id_of_item, weights=run.dataset.popularity, minlength=len(catalog.ids)),
        users=np.asarray(chosen.users),
        tokens=np.concatenate([batch["tokens"] for batch in batches])[order],
        decode=run.serve.decode,
        head=np.array(shared_head(catalog), np.int32),
    )


def _to_decode(config):
    return dataclasses.replace(config, dropout=0.0, adapter_dropout=0.0, remat=False)
