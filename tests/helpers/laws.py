"""Whether draws have the law they should: chi-square against its enumeration."""

from __future__ import annotations

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.noise import user_keys
from cases import Batch

USERS, ROUNDS = 4000, 5  # 20,000 draws


def crowd(batch: Batch, row: int, seed: int) -> Prompt:
    """USERS users who all have the prompt of one user of the batch, and a key each."""
    prompt = batch.prompt
    return Prompt(
        jnp.broadcast_to(prompt.tokens[row], (USERS, prompt.tokens.shape[1])),
        jnp.broadcast_to(prompt.valid[row], (USERS, prompt.valid.shape[1])),
        user_keys(seed, np.arange(USERS)),
    )


def smooth(batch: Batch) -> Batch:
    """The same with logits close to each other, so that no draw is rare."""
    return dataclasses.replace(
        batch, table=batch.table / 2, draft=jax.tree.map(lambda x: x / 2, batch.draft), exact=False
    )


def p_value(draws: collections.Counter, law: dict) -> float:
    """Of the draws under the law; 0 for a draw that the law does not know. Rare outcomes are counted together."""
    if set(draws) - set(law):
        return 0.0
    total = sum(draws.values())
    common = [outcome for outcome, chance in law.items() if chance * total >= 10]
    expected = [law[outcome] * total for outcome in common]
    seen = [draws[outcome] for outcome in common]
    if total - sum(expected) >= 10:
        expected.append(total - sum(expected))
        seen.append(total - sum(seen))
    else:
        seen[0] += total - sum(seen)
        expected[0] += total - sum(expected)
    return float(stats.chisquare(seen, expected).pvalue) if len(seen) > 1 else 1.0
