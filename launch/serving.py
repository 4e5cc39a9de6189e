"""What mains that decode with a trained run share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atspeed_jax.items.names import ItemNames
from atspeed_jax.items.titles import TitlesError, read_titles
from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.serve import decoders_of, lists_by, names_of, titles_of
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


@dataclass(frozen=True)
class Served:
    """What the flags of launch.recommend name.

    Attributes:
      items: what files call the items of the catalog.
      titles: of items, for the lists; None for lists without titles.
      load: loads the models. It gives the function from users to lists, and a
        fingerprint of whatever decides the lists.
    """

    items: ItemNames
    titles: Mapping[int, str] | None
    load: Callable[[], tuple[Lists, str]]


def _titles(items: ItemNames, known: Mapping[int, str]) -> Mapping[int, str] | None:
    """The titles that --titles names. Without the flag those that are known, if items
    have names.

    Raises:
      TitlesError: the file does not exist, or as `read_titles`.
    """
    if FLAGS.titles is None:
        return known if known and items.names is not None else None
    if not Path(FLAGS.titles).is_file():
        raise TitlesError(f"--titles={FLAGS.titles}: no such file")
    return read_titles(Path(FLAGS.titles), items.items)


def served() -> Served:
    """Opens what the flags of launch.recommend name: a run or a Hugging Face model.

    Raises:
      ConfigError: neither is named.
      TitlesError, NamesError: a file of titles or names cannot be read.
    """
    if FLAGS.model:
        model = hugging_face.served_model()

        def load_model() -> tuple[Lists, str]:
            how = {"exclude_seen": FLAGS.exclude_seen, "batch_size": FLAGS.batch_size}
            lists = model.lists(FLAGS.k, **how, say=say)
            return lists, fingerprint(*model.fingerprint, FLAGS.k, FLAGS.exclude_seen)

        return Served(model.names, _titles(model.names, model.titles), load_model)
    if not FLAGS.workdir:
        raise ConfigError("give --workdir=DIR of a trained run, or --model=HF_DIR and --index=FILE")
    run = open_run(writes=False)

    def load_run() -> tuple[Lists, str]:
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say)
        shapes = {"history": run.config.data.history, "buckets": run.serve.evaluate.buckets}
        models = run.target_params, run.draft_params if setting.drafter == "draft" else None
        lists = lists_by(run, decoders, setting, exclude_seen=FLAGS.exclude_seen)
        return lists, fingerprint(*map(fingerprint_of, models), setting, FLAGS.exclude_seen, shapes)

    names = names_of(run)
    return Served(names, _titles(names, titles_of(run)), load_run)


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes PATH.json, and PATH.md with the table, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
