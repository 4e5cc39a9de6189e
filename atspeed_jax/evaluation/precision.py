"""Equality of lists where a model computes below float32.

There, two batch shapes of one model round apart. So the difference between speculation
and plain beam search is compared with the difference between plain beam search and
itself at another batch size.
"""

from __future__ import annotations

import jax.numpy as jnp

from atspeed_jax.evaluation.metrics import paired_difference
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.serving.lists import Agreement


def is_low(model: LlamaConfig) -> bool:
    """Whether a model computes below float32, by its dtype or by the precision of its
    products.
    """
    return jnp.finfo(model.dtype).bits < 32 or model.precision != "highest"


def other_batch_size(batch_size: int) -> int:
    """The batch size at which plain beam search is compared with itself."""
    return batch_size // 4 or 4


def compare(
    speculative: Agreement, itself: Agreement, *, arithmetic: str, batch_size: int, samples: int, seed: int
) -> dict:
    """Makes the "agreement" of a row.

    Args:
      speculative: of speculation with plain beam search, over N users.
      itself: of plain beam search with itself at another batch size, over the same
        users.
      arithmetic: of the target, in words.
      batch_size: that other batch size.
      samples, seed: of the bootstrap.

    Returns:
      The figures of `speculative`; "itself", those of `itself`; "itself_batch_size",
      "arithmetic"; and "loses_more", the figures that are surely worse in
      `speculative`: beyond the 95 % interval of the paired difference over the users.
    """
    lost = {
        "same_list": itself.same_list - speculative.same_list,
        "items_shared": itself.items_shared - speculative.items_shared,
        "score_gap": speculative.score_gap - itself.score_gap,
    }
    low = {name: paired_difference(each, 0 * each, samples=samples, seed=seed).low for name, each in lost.items()}
    loses_more = [name for name, bound in low.items() if bound > 0]
    about = {
        "arithmetic": arithmetic,
        "itself": itself.figures,
        "itself_batch_size": batch_size,
        "loses_more": loses_more,
    }
    return speculative.figures | about
