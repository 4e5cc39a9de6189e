"""Which histories the teacher is asked about: those whose answer the target cannot remember come first."""

from __future__ import annotations

import numpy as np

from atspeed_jax.data.dataset import Dataset

EXAMPLES = "whole history, continuation, known items"  # names the rule below; part of the teacher's fingerprint


def teacher_examples(dataset: Dataset, prompts: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Up to `prompts` examples of every training user, user after user: (histories, next items [examples], -1: none).

    A user's first is the whole train history; the second, a continuation of it by an item that followed its last one in
    another user's history (or, if none did, by any item as popular as it is). Nobody was trained on what comes next
    there, so the target is asked what it will be asked in service. The third has the last train item as next, the
    fourth the one before it, and so on: there the target half remembers the answer, which is harder to follow.
    """
    histories, following = [], []
    continuations = _continuations(dataset)
    for user, items in enumerate(dataset.train):
        if len(items):
            known = [(items[:place], items[place]) for place in reversed(range(len(items)))]
            for one, item in [(items, -1), (np.append(items, continuations[user]), -1), *known][:prompts]:
                histories.append(one.astype(np.int32))
                following.append(item)
    return histories, np.array(following, np.int32)


def _continuations(dataset: Dataset) -> np.ndarray:
    """[users] an item that may come after each user's whole train history, see `teacher_examples`; always the same."""
    rng = np.random.default_rng(0)
    pairs = np.concatenate([np.stack([items[:-1], items[1:]], 1) for items in dataset.train])
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    start = np.searchsorted(pairs[:, 0], np.arange(dataset.catalog.items + 1))
    found = rng.choice(np.concatenate(dataset.train), len(dataset.train))
    for user, items in enumerate(dataset.train):
        if len(items):
            after = pairs[start[items[-1]] : start[items[-1] + 1], 1]
            after = after[~np.isin(after, items)]
            found[user] = rng.choice(after) if len(after) else found[user]
    return found
