"""The settings of an evaluation: what is measured, and on whom."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.decoding.config import Widths
from atspeed_jax.serving.settings import DrafterName
from atspeed_jax.utils import ranges as R


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and on whom.

    Attributes:
      list_size: K of the lists whose quality is measured.
      beams: each K that all users are decoded with, at the default widths.
      grid_beams, grid_widths: the rest of the grid, decoded for `grid_users` users.
      grid_users: users of the rest of the grid, a fixed choice by `seed`.
      drafters: who drafts; plain beam search is measured anyway.
      users: test users that are measured, a fixed choice by `seed`; None for all.
      batch_size: of everything but latency, which is measured at batch 1.
      buckets: prompt lengths in items when all users are decoded. Fewer users get
        prompts of the longest length alone, since each length compiles every setting
        once more.
      latency_users, latency_repeats: users, and repeats per user, of the latency.
      bootstrap_samples: of the 95 % intervals.
      seed: of every choice of users, of draws and of bootstraps.
      tune: each K for which the fastest way to decode one user at a time is searched
        after training; () for none.
      beside_tuned: whether a K that speculates with tuned settings is also decoded with
        the widths of the config.

    Raises:
      ValueError: what cannot be measured or reported.
    """

    list_size: Annotated[int, R.Range(10, 10_000, why="the report shows Recall@10")]
    beams: tuple[R.Beams, ...]
    grid_beams: tuple[R.Beams, ...]
    grid_widths: tuple[Widths, ...]
    grid_users: R.Users
    drafters: tuple[DrafterName, ...]
    users: R.Users | None
    batch_size: R.BatchSize
    buckets: tuple[R.Items, ...]
    latency_users: R.Users
    latency_repeats: R.Repeats
    bootstrap_samples: R.Samples
    seed: R.Seed
    tune: tuple[R.Beams, ...] = ()
    beside_tuned: bool = True

    def __post_init__(self):
        R.check_ranges(self)
        R.check_increasing(self, "buckets")
        R.check_each_once(self, "tune", least=0)
        every = (*self.beams, *self.grid_beams)
        if not self.beams or len(set(every)) != len(every):
            raise ValueError(
                f"beams={self.beams}, grid_beams={self.grid_beams}: expected one or more K for all users, each K named "
                "once"
            )
        if "none" in self.drafters:
            raise ValueError("drafters holds 'none', which is plain beam search; it is always measured, leave it out")

    def batch_shape(self, history: int) -> BatchShape:
        """The shape of the batches that all users are decoded in.

        Args:
          history: newest items of a user that a prompt holds.
        """
        return BatchShape(history, self.buckets, self.batch_size)
