"""How a trained run decodes: who drafts, for what K, in what batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from atspeed_jax.items.index_file import read_index_with_gaps
from atspeed_jax.items.item_index import IndexSettings, ItemIndex
from atspeed_jax.items.names import NAMES_FILE, ItemNames, read_names
from atspeed_jax.items.titles import TITLES_FILE, read_titles
from atspeed_jax.runs.trained import RunView
from atspeed_jax.runs.tuning import tuned_for
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.recommend import Lists, lists_of
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning.tuned_file import TUNED_FILE, Tuning, tuned_setting

DrafterChoice = Literal["draft", "popularity", "none", "tuned"]


def titles_of(run: RunView) -> dict[int, str]:
    """The titles of items in the working directory of a run; empty without a file.

    Raises:
      TitlesError: as `read_titles`.
    """
    return read_titles(run.workdir / TITLES_FILE, run.catalog.items)


def names_of(run: RunView) -> ItemNames:
    """What the items of a run are called: by the names in its working directory, or by
    their numbers without such a file.

    Raises:
      NamesError: as `read_names`.
    """
    return ItemNames(run.catalog.items, read_names(run.workdir / NAMES_FILE, run.catalog.items))


def items_of(run: RunView) -> Assortment:
    """The items that a run was trained with, their names and titles.

    Raises:
      NamesError, TitlesError: a file of the working directory cannot be read.
    """
    return Assortment(run.dataset, names_of(run), titles_of(run))


def index_for(run: RunView, file: Path) -> ItemIndex:
    """Reads the index of another catalog, as the run reads its own. Items may have gaps.

    Raises:
      SourceError: as `read_index_with_gaps`.
    """
    return read_index_with_gaps(file, IndexSettings(levels=run.config.data.levels))


def decoders_of(
    run: RunView,
    drafter: DrafterChoice | None,
    beams: int,
    say: Callable[[str], None],
    *,
    batch_size: int | None = None,
) -> tuple[Decoders, Setting]:
    """The decoders of a run, and the setting that a drafter and K = `beams` describe.

    Args:
      drafter: "none" for plain beam search; "tuned" for the choice of the tuner; None
        for that choice if it holds here, and else for the draft model: see
        `setting_of`.
      say: gets a line where the choice of the tuner is used or not used, and where
        widths or a budget too small for K are raised.
      batch_size: users decoded at once, by which a choice is looked up; None for
        `serve.evaluate.batch_size`.

    Raises:
      ValueError: the drafter is unknown.
      TuneError: "tuned", and no choice for K holds here.
      CheckpointError: a model is not trained or is damaged.
    """
    if drafter is not None and drafter not in get_args(DrafterChoice):
        raise ValueError(f"drafter={drafter!r}: expected one of {', '.join(map(repr, get_args(DrafterChoice)))}")
    if drafter is None:
        setting = setting_of(run, beams, say, batch_size=batch_size)
    elif drafter == "tuned":
        setting = tuned_of(run, beams, batch_size=batch_size, say=say)
    else:
        setting = Setting.strict(drafter, beams, run.serve.decode)
        if (run.workdir / TUNED_FILE).is_file():
            say(f"{run.workdir / TUNED_FILE} is not used: drafter={drafter!r} is asked for")
    decoders = run.decoders(run.draft_params if setting.drafter == "draft" else None)
    return decoders, decoders.fitted(setting, say)


def setting_of(run: RunView, beams: int, say: Callable[[str], None], *, batch_size: int | None = None) -> Setting:
    """How a run decodes unless somebody asks for a drafter.

    The choice of the tuner is used if WORKDIR/tuned.json holds for this device, pair,
    norm and K. Decode settings that differ from the recorded ones come before it.

    Args: see `decoders_of`.

    Returns:
      The choice; or strict speculation by the draft model with the run's decode
      settings, and then `say` gets the reason.
    """
    own, tuning = Setting.strict("draft", beams, run.serve.decode), _that_holds(run, say)
    if tuning is None:
        return own
    if beams not in tuning.beams:
        known = ", ".join(map(str, tuning.beams))
        say(f"{tuning.path} has no K={beams}, only {known}: the draft model drafts, by the settings of the run")
        return own
    setting = tuning.setting(beams, _batch_size(run, batch_size), say)
    say(f"{tuning.path}: {setting.label}")
    return setting


def tuned_settings(run: RunView, say: Callable[[str], None]) -> dict[int, Setting]:
    """The choices of the tuner for one user at a time, by K; empty where none holds.

    Args:
      say: gets the reason why WORKDIR/tuned.json is not used.
    """
    tuning = _that_holds(run, say)
    return {} if tuning is None else {beams: tuning.setting(beams, 1) for beams in tuning.beams}


def tuned_calls_by_nodes(run: RunView) -> list[dict]:
    """The tuner's `candidates.calls_by_nodes` with their "K"; empty where none holds."""
    tuning = _that_holds(run, lambda text: None)
    rows = [] if tuning is None else [tuning.row(beams, 1) for beams in tuning.beams]
    return [{"K": row["K"], **curve} for row in rows for curve in row.get("calls_by_nodes", ())]


def _that_holds(run: RunView, say: Callable[[str], None]) -> Tuning | None:
    """The choices of the tuner; None if no file has any, or if they do not hold here."""
    tuning = Tuning.read(run.workdir)
    if tuning is None:
        return None
    recorded = dataclasses.replace(run.config.decode, unroll=run.serve.decode.unroll)
    why = "decode settings are given" if run.serve.decode != recorded else tuning.unfit(tuned_for(run))
    if why is not None:
        say(f"{tuning.path} is not used: {why}")
    return tuning if why is None else None


def tuned_of(
    run: RunView, beams: int, *, batch_size: int | None = None, say: Callable[[str], None] = lambda text: None
) -> Setting:
    """The choice of launch.tune_decoder, a command of the checkout, for K = `beams`.

    Args:
      batch_size: users decoded at once; None for `serve.evaluate.batch_size`. The
        nearest batch size of the table counts.
      say: gets a line if that batch size was not tuned.

    Raises:
      TuneError: nothing was tuned for K, or only for another device, pair or norm.
    """
    return tuned_setting(run.workdir, beams, _batch_size(run, batch_size), tuned_for(run), say)


def _batch_size(run: RunView, batch_size: int | None) -> int:
    return run.serve.evaluate.batch_size if batch_size is None else batch_size


def lists_by(
    run: RunView,
    decoders: Decoders,
    setting: Setting,
    *,
    exclude_seen: bool,
    batch_size: int | None = None,
    items: Assortment | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Lists:
    """Users -> lists, by the prompts and batches of the run: see `lists_of`.

    Args:
      batch_size: users decoded at once; None for `serve.evaluate.batch_size`.
      items: that are listed; None for those of the run.
      say: gets a line if programs are compiled again for the items.
    """
    shape = run.serve.evaluate.batch_shape(run.config.data.history)
    if batch_size is not None:
        shape = dataclasses.replace(shape, batch_size=batch_size)
    if items is not None:
        decoders, setting = items.decoders(decoders, setting, say)
    dataset = run.dataset if items is None else items.dataset
    return lists_of(decoders, setting, dataset, shape, exclude_seen=exclude_seen)
