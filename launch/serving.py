"""What mains that decode with a trained run share."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.serve import decoders_of, index_for, items_of, lists_by
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.filter_file import UserFilters
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.preemption import stop_after_sigterm
from atspeed_jax.utils import files
from launch import catalogs, hugging_face
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
      items: which items lists hold, and what files call them.
      titles: of items, for the lists; None for lists without titles.
      filters: lists per user of what a user may get.
      load: loads the models. It gives the function from users to lists, and a
        fingerprint of whatever decides the lists.
      own: makes the lists by the trained catalog, when the models are loaded.
      trained: number of items of the trained catalog.
    """

    items: Assortment
    titles: Mapping[int, str] | None
    filters: UserFilters
    load: Callable[[], tuple[Lists, str]]
    own: Callable[[], Lists]
    trained: int

    @property
    def words(self) -> dict:
        """What lines call the items, for `recommend`."""
        return {"titles": self.titles, "names": self.items.names}


def served() -> Served:
    """Opens what the flags of launch.recommend name: a run or a Hugging Face model.

    Raises:
      ConfigError: neither is named.
      ValueError: flags that do not go together, or a file that cannot be read or does
        not fit the models.
    """
    catalogs.check_flags()
    if FLAGS.model:
        model = hugging_face.served_model()
        how = {"exclude_seen": FLAGS.exclude_seen, "batch_size": FLAGS.batch_size, "say": say}
        trained, read = model.items, model.read_index

        def lists(items: Assortment) -> Lists:
            return model.lists(FLAGS.k, **how, items=items)

        def made_from() -> tuple:
            return (*model.fingerprint, FLAGS.k, FLAGS.exclude_seen)

    elif not FLAGS.workdir:
        raise ConfigError("give --workdir=DIR of a trained run, or --model=HF_DIR and --index=FILE")
    else:
        run = open_run(writes=False)
        trained, read = items_of(run), functools.partial(index_for, run)
        decode = functools.cache(lambda: decoders_of(run, FLAGS.drafter, FLAGS.k, say))

        def lists(items: Assortment) -> Lists:
            return lists_by(run, *decode(), exclude_seen=FLAGS.exclude_seen, items=items, say=say)

        def made_from() -> tuple:
            setting = decode()[1]
            shapes = {"history": run.config.data.history, "buckets": run.serve.evaluate.buckets}
            models = run.target_params, run.draft_params if setting.drafter == "draft" else None
            return (*map(fingerprint_of, models), setting, FLAGS.exclude_seen, shapes)

    grown = catalogs.chosen(trained, read, say)
    left, filters, lists_per_user = catalogs.filtered(grown, say)

    def load() -> tuple[Lists, str]:
        return lists(left), fingerprint(*made_from(), *left.changes, *lists_per_user)

    titles = catalogs.titles_of(grown)
    return Served(left, titles, filters, load, lambda: lists(trained), trained.names.items)


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes PATH.json, and PATH.md with the table, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
