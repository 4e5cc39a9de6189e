"""What mains that decode with a trained run share."""

from collections.abc import Callable
from pathlib import Path

from atspeed_jax.items.titles import TitlesError, read_titles
from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.serve import decoders_of, lists_by
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.preemption import stop_after_sigterm
from atspeed_jax.utils import files
from launch import hugging_face
from launch.stage import FLAGS, open_run, say

DRAFTER_HELP = (
    "Who drafts; none: plain beam search; tuned: the choice of launch.tune_decoder. Not given: that choice where it "
    "holds, else draft."
)


def by_chunk(lists: Lists) -> Lists:
    """Returns `lists` with what happens before each chunk of users.

    Before the first chunk it says that the decoder is compiled, since the progress bar
    stands still meanwhile. Before every chunk several processes ask whether SIGTERM has
    come (`stop_after_sigterm`): all chunks before are written.
    """
    waiting = True

    def chunk(users):
        nonlocal waiting
        stop_after_sigterm("recommend")
        if waiting:
            say("compiling the decoder; the bar moves when the first users are written")
        waiting = False
        return lists(users)

    return chunk


def given_titles(items: int) -> dict[int, str] | None:
    """Reads the titles of items that --titles names; None without the flag.

    Raises:
      TitlesError: the file does not exist, or as `read_titles`.
    """
    if FLAGS.titles is None:
        return None
    if not Path(FLAGS.titles).is_file():
        raise TitlesError(f"--titles={FLAGS.titles}: no such file")
    return read_titles(Path(FLAGS.titles), items)


def served() -> tuple[int, Callable[[], tuple[Lists, str]]]:
    """Opens what the flags of launch.recommend name: a run or a Hugging Face model.

    Returns:
      The number of items, and a function that loads the models. That gives the function
      from users to lists, and a fingerprint of whatever decides the lists.

    Raises:
      ConfigError: neither is named.
    """
    if FLAGS.model:
        model = hugging_face.served_model()

        def load_model() -> tuple[Lists, str]:
            how = {"exclude_seen": FLAGS.exclude_seen, "batch_size": FLAGS.batch_size}
            lists = model.lists(FLAGS.k, **how, say=say)
            return lists, fingerprint(*model.fingerprint, FLAGS.k, FLAGS.exclude_seen)

        return model.catalog.items, load_model
    if not FLAGS.workdir:
        raise ConfigError("give --workdir=DIR of a trained run, or --model=HF_DIR and --index=FILE")
    run = open_run(writes=False)

    def load_run() -> tuple[Lists, str]:
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say)
        shapes = {"history": run.config.data.history, "buckets": run.serve.evaluate.buckets}
        models = run.target_params, run.draft_params if setting.drafter == "draft" else None
        lists = lists_by(run, decoders, setting, exclude_seen=FLAGS.exclude_seen)
        return lists, fingerprint(*map(fingerprint_of, models), setting, FLAGS.exclude_seen, shapes)

    return run.dataset.catalog.items, load_run


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes PATH.json, and PATH.md with the table, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
