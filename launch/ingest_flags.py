"""Flags of launch.ingest about columns, filters and the split."""

import contextlib
import dataclasses
import datetime
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast, get_args

from absl import flags

from atspeed_jax.ingest.settings import Columns, Files, Filters, Format, How, IngestSettings, Limits, Repeats, Split
from launch.command_line import CommandLineError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags."""
    form = "Form of a published log, or table; auto goes by the first line."
    flags.DEFINE_enum("format", "auto", list(get_args(Format)), form)
    flags.DEFINE_enum("encoding", None, ["utf-8", "latin-1", "utf-16"], "Encoding of CSV files, if it is not UTF-8.")
    flags.DEFINE_string("delimiter", None, "What stands between the cells of a CSV, if the first line does not say it.")
    flags.DEFINE_string("user", None, "Column of the user, if it has no usual name.")
    flags.DEFINE_string("item", None, "Column of the item, likewise.")
    flags.DEFINE_string("time", None, "Column of the time: seconds to nanoseconds since 1970, or ISO dates.")
    flags.DEFINE_string("time_format", None, "Form of dates that are not ISO, such as %d.%m.%Y.")
    flags.DEFINE_string("rating", None, "Column of the rating, which --min_rating needs.")
    flags.DEFINE_string("item_name", None, "Column of --items that names the item as the log does.")
    flags.DEFINE_string("title", None, "Column of --items with the title.")
    flags.DEFINE_string("text", None, "Column of --items with a longer text.")
    flags.DEFINE_string("category", None, "Column of --items with the category.")
    flags.DEFINE_string("brand", None, "Column of --items with the brand.")
    flags.DEFINE_string("price", None, "Column of --items with the price.")
    flags.DEFINE_string("vector", None, "Column of --items with a list of numbers.")
    flags.DEFINE_float("min_rating", None, "Drop events with a lower rating.", -1e9, 1e9)
    flags.DEFINE_string("since", None, "First day or moment that is kept, such as 2024-05-01, in UTC.")
    flags.DEFINE_string("until", None, "First day or moment that is not kept.")
    flags.DEFINE_bool("need_text", False, "Drop items without title and text.")
    repeats = "Which events of a user with the same item are kept."
    flags.DEFINE_enum("repeats", "all", list(get_args(Repeats)), repeats)
    flags.DEFINE_integer("core", 0, "Least events of every user and item that is kept.", 0, 10**9)
    flags.DEFINE_integer("user_core", None, "The same for users alone.", 0, 10**9)
    flags.DEFINE_integer("item_core", None, "The same for items alone.", 0, 10**9)
    flags.DEFINE_integer("min_train", 0, "Least training events of every user that is kept, after the split.", 0, 10**9)
    how = "time: two moments for all users; leave_one_out: the last two of each user; rolling: time, one by one."
    flags.DEFINE_enum("split", "time", list(get_args(How)), how)
    flags.DEFINE_float("valid_share", 0.1, "Share of the events in valid, of a split by time.", 0.0, 1.0)
    flags.DEFINE_float("test_share", 0.1, "Share of the events in test, of a split by time.", 0.0, 1.0)
    flags.DEFINE_float("memory_gb", 4.0, "Memory of the engine; more is written beside --output.", 0.1, 1e6)
    runner = "Runner of Apache Beam that filters and splits the log, such as DirectRunner; without it, this machine."
    flags.DEFINE_string("runner", None, runner)
    flags.DEFINE_multi_string("beam", [], "A flag for Beam, such as --beam=--project=NAME.")
    flags.DEFINE_integer("threads", None, "Threads of the engine; all processors by default.", 1, 4096)


def given_config() -> IngestSettings:
    """The settings that the flags name.

    Raises:
      CommandLineError: a moment that cannot be read.
      IngestError: settings that do not go together.
    """
    columns = Columns(**{field.name: FLAGS[field.name].value for field in dataclasses.fields(Columns)})
    user_core, item_core = (cast(int, FLAGS.core if own is None else own) for own in (FLAGS.user_core, FLAGS.item_core))
    repeats = cast(Repeats, FLAGS.repeats)
    filters = Filters(
        FLAGS.min_rating,
        _moment("since"),
        _moment("until"),
        FLAGS.need_text,
        repeats,
        user_core,
        item_core,
        FLAGS.min_train,
    )
    split = Split(cast(How, FLAGS.split), FLAGS.valid_share, FLAGS.test_share)
    files = Files(cast(Format, FLAGS.format), FLAGS.encoding, FLAGS.delimiter, FLAGS.time_format)
    return IngestSettings(columns, filters, split, Limits(FLAGS.memory_gb, FLAGS.threads), files)


@contextlib.contextmanager
def given_way(output: Path) -> Iterator[Callable | None]:
    """Yields what filters and splits the log: Beam with --runner, else None for DuckDB.

    Raises:
      CommandLineError: flags of Beam without a runner, or Beam is not installed.
    """
    if FLAGS.runner is None:
        if FLAGS.beam:
            raise CommandLineError(f"--beam={FLAGS.beam[0]} is for Beam: give --runner too")
        yield None
        return
    if importlib.util.find_spec("apache_beam") is None:
        raise CommandLineError(f"--runner={FLAGS.runner} needs apache-beam: pip install -r tests/beam.txt")
    from atspeed_jax.ingest.by_beam import by_beam

    with tempfile.TemporaryDirectory(prefix=f".{output.name}.beam-", dir=output.absolute().parent) as between:
        yield by_beam((f"--runner={FLAGS.runner}", *FLAGS.beam), Path(between))


def _moment(flag: str) -> int | None:
    """A moment in milliseconds since 1970."""
    text = FLAGS[flag].value
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandLineError(f"--{flag}={text}: expected a date such as 2024-05-01 or 2024-05-01T12:30:00") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)
