"""What is measured while training, on fixed validation users.

Every choice is made on validation users; test users are read once. `list_quality` and
`target_calls` make the `evaluate` of `training.train.fit`: parameters -> figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import HeldOutUsers, held_out_users
from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.evaluation import metrics
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.items.catalog import expand_ids
from atspeed_jax.serving.decode_users import decode_users

CUT = 10  # entries of a list that count when parameters are chosen
BEAMS = 20  # of the search that makes the list: fewer give a worse list, and another choice


class FixedUsers(NamedTuple):
    """Validation users, and their histories as prompts."""

    chosen: HeldOutUsers
    batches: list[dict]


def fixed_users(dataset: Dataset, config: EvaluateConfig, history: int, *, count: int, seed: int) -> FixedUsers:
    """Chooses validation users, with the batches that the evaluation would decode.

    Args:
      dataset: of the users.
      config: of the evaluation.
      history: newest items of a user that a prompt holds.
      count: users, or all if the dataset has fewer.
      seed: of the choice.
    """
    chosen = held_out_users(dataset, "valid").sample(count, seed)
    return FixedUsers(chosen, chosen.batches(dataset, config.batch_shape(history)))


def list_quality(
    dataset: Dataset, users: FixedUsers, decoder: Callable[[Any], Callable[[Prompt], Result]]
) -> Callable[[Any], dict[str, float]]:
    """Makes the evaluation of a target: the mean quality of its lists, seen items kept.

    Args:
      dataset: catalog and popularity, by which ids become items.
      users: the validation users.
      decoder: maps parameters to plain beam search with K = BEAMS.

    Returns:
      A function of the target's parameters that returns {"recall@10", "ndcg@10"}.
    """
    items_sorted, offsets = dataset.catalog.items_by_id(dataset.popularity)

    def evaluate(params) -> dict[str, float]:
        decoded = decode_users(decoder(params), users.batches, len(users.chosen.users))
        lists = expand_ids(decoded.ids, items_sorted, offsets, CUT)
        measured = metrics.measure_lists(lists, users.chosen.truths, (CUT,), items=dataset.catalog.items)
        return {name: float(values.mean()) for name, values in measured.items()}

    return evaluate


def target_calls(
    users: FixedUsers, decoder: Callable[[Any], Callable[[Prompt], Result]]
) -> Callable[[Any], dict[str, float]]:
    """Makes the evaluation of a draft: target calls and coverage, means over the users.

    Args:
      users: the validation users.
      decoder: maps parameters to a speculative decoder.

    Returns:
      A function of the draft's parameters that returns "target_calls", "accept_steps"
      (AS@K, the levels that cost no call) and "coverage_1", "coverage_2", ...: the
      share of the target's K beams of a level that were drafted in round 1, among the
      users whose walk reached the level.
    """

    def evaluate(params) -> dict[str, float]:
        decoded = decode_users(decoder(params), users.batches, len(users.chosen.users))
        assert decoded.coverage is not None, "the draft drafts"
        calls = float(decoded.calls.mean())
        figures = {"target_calls": calls, "accept_steps": decoded.coverage.shape[1] + 1 - calls}
        shares = enumerate(decoded.coverage_by_level, start=1)
        return figures | {f"coverage_{level}": share for level, share in shares if share is not None}

    return evaluate
