"""How a trained run decodes: who drafts, for what K, in what batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

from atspeed_jax.runs.trained import RunView
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.recommend import Lists, lists_of
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.tune import tuned_setting

DrafterChoice = Literal["draft", "popularity", "none", "tuned"]


def decoders_of(
    run: RunView,
    drafter: DrafterChoice,
    beams: int,
    say: Callable[[str], None],
    *,
    batch_size: int | None = None,
) -> tuple[Decoders, Setting]:
    """The decoders of a run, and the setting that a drafter and K = `beams` describe.

    Args:
      drafter: "none" for plain beam search; "tuned" for the choice of
        launch.tune_decoder, a command of the checkout.
      say: called with one line where widths or a budget too small for K are raised.
      batch_size: users decoded at once, by which "tuned" is looked up; None for
        `serve.evaluate.batch_size`.

    Raises:
      ValueError: the drafter is unknown.
      TuneError: nothing was tuned for K.
      CheckpointError: a model is not trained or is damaged.
    """
    if drafter not in get_args(DrafterChoice):
        raise ValueError(f"drafter={drafter!r}: expected one of {', '.join(map(repr, get_args(DrafterChoice)))}")
    if drafter == "tuned":
        setting = tuned_of(run, beams, batch_size=batch_size)
    else:
        setting = Setting.strict(drafter, beams, run.serve.decode)
    decoders = run.decoders(run.draft_params if setting.drafter == "draft" else None)
    return decoders, decoders.fitted(setting, say)


def tuned_of(run: RunView, beams: int, *, batch_size: int | None = None) -> Setting:
    """The choice of launch.tune_decoder, a command of the checkout, for K = `beams`.

    Args:
      batch_size: users decoded at once; None for `serve.evaluate.batch_size`. The
        nearest batch size of the table counts.

    Raises:
      TuneError: nothing was tuned for K.
    """
    size = run.serve.evaluate.batch_size if batch_size is None else batch_size
    return tuned_setting(run.workdir, beams, size, run.serve.decode.score_norm)


def lists_by(
    run: RunView, decoders: Decoders, setting: Setting, *, exclude_seen: bool, batch_size: int | None = None
) -> Lists:
    """Users -> lists, by the prompts and batches of the run: see `lists_of`.

    Args:
      batch_size: users decoded at once; None for `serve.evaluate.batch_size`.
    """
    shape = run.serve.evaluate.batch_shape(run.config.data.history)
    if batch_size is not None:
        shape = dataclasses.replace(shape, batch_size=batch_size)
    return lists_of(decoders, setting, run.dataset, shape, exclude_seen=exclude_seen)
