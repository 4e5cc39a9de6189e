"""What mains that decode with a trained run share."""

from pathlib import Path

from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.recommend import Lists, lists_of
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.tune import tuned_setting
from atspeed_jax.utils import files
from launch.stage import say


def decoders_of(run: Run, drafter: str, beams: int) -> tuple[Decoders, Setting]:
    """The decoders of a run and the setting that --drafter and K describe; widths too small for K are raised.

    drafter: "draft", "popularity", "none" for plain beam search, "tuned" for the choice of launch.tune_decoder. Raises
    TuneError where nothing was tuned for K.
    """
    setting = tuned_of(run, beams) if drafter == "tuned" else Setting.strict(drafter, beams, run.serve.decode)
    decoders = run.decoders(run.draft_params if setting.drafter == "draft" else None)
    return decoders, decoders.fitted(setting, say)


def lists_by(run: Run, decoders: Decoders, setting: Setting, *, exclude_seen: bool) -> Lists:
    """Users -> their lists, with the prompts and batches that the run is served with; see `lists_of`."""
    shape = run.serve.evaluate.batch_shape(run.config.data.history)
    return lists_of(decoders, setting, run.dataset, shape, exclude_seen=exclude_seen)


def tuned_of(run: Run, beams: int) -> Setting:
    """The choice of launch.tune_decoder for K = `beams` and the batch size that the run is served with."""
    return tuned_setting(run.workdir, beams, run.serve.evaluate.batch_size, run.serve.decode.score_norm)


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes what was measured to PATH.json and its table to PATH.md, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
