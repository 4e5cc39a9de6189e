"""The prompts that the teacher decodes.

Prompts whose answer the target cannot remember come first.
"""

from __future__ import annotations

import numpy as np

from atspeed_jax.data.dataset import Dataset

# Names the rule of `teacher_prompts`; part of the teacher's fingerprint.
PROMPT_RULE = "whole history, continuation, known items"


def teacher_prompts(dataset: Dataset, prompts: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Lists up to `prompts` prompts of every training user, user after user.

    The first prompt is the whole train history. The second continues it by an item that
    followed its last item in another user's history; if no item did, by an item drawn
    by popularity. The target was not trained on what comes next, so it answers as
    it will when serving. The third prompt ends before the last train item, the fourth
    before the one before that, and so on. There the target partly remembers the answer,
    which is harder to follow.

    Args:
      dataset: the training users.
      prompts: most prompts per user.

    Returns:
      The histories, and the item that follows each [prompts], -1 for none.
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
    """Draws an item that may follow each user's train history [users]."""
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
