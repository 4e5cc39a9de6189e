"""Flags that say which items lists hold: another catalog, filters, and what they are called."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from atspeed_jax.items.catalog import CatalogError
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.titles import TitlesError, read_titles
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.filter_file import FilterFile, UserFilters, read_filter
from atspeed_jax.serving.lists import catalog_changes
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.serving.user_file import NOTHING, User
from launch.command_line import CommandLineError

FLAGS = flags.FLAGS
_FILE = "an item per line, a JSON list or parquet with a column item; or per user, as --input has them."


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("titles", None, "JSON file of the items' titles, which the lists get; *.item.json will do.")
    flags.DEFINE_string(
        "catalog", None, "Index of the items that are listed now: known, new, and without removed ones."
    )
    flags.DEFINE_string("allow", None, f"File of the items that lists may hold: {_FILE}")
    flags.DEFINE_string("exclude", None, f"File of items that no list holds: {_FILE}")
    flags.DEFINE_enum(
        "without_allow", "error", ["error", "all"], "A user without a list in --allow: an error, or all items."
    )
    flags.DEFINE_integer(
        "compare_catalogs",
        0,
        "First users whose lists by --catalog and by the trained catalog are compared.",
        0,
        100_000,
    )


def check_flags() -> None:
    """Checks flags that do not go together, before a run is opened.

    Raises:
      CommandLineError: --compare_catalogs without --catalog, or with a filter.
    """
    if FLAGS.compare_catalogs and not FLAGS.catalog:
        raise CommandLineError(
            f"--compare_catalogs={FLAGS.compare_catalogs} compares with --catalog=INDEX: give it too"
        )
    if FLAGS.compare_catalogs and (FLAGS.allow or FLAGS.exclude):
        raise CommandLineError("--compare_catalogs compares whole catalogs: leave --allow and --exclude out")


def chosen(trained: Assortment, read: Callable[[Path], ItemIndex], say: Callable[[str], None]) -> Assortment:
    """Returns the items that --catalog names; `trained` without the flag.

    Args:
      trained: the items that the models were trained with.
      read: reads the index of another catalog.
      say: gets a line that counts known, new and removed items.

    Raises:
      ValueError: a file cannot be read, or does not fit the models.
    """
    if FLAGS.catalog is None:
        return trained
    return trained.grown(read(Path(FLAGS.catalog)), Path(FLAGS.catalog), say)


def titles_of(items: Assortment) -> dict[int, str] | None:
    """The titles that --titles names. Without the flag those that are known, if items
    have names; None for lists without titles.

    Raises:
      TitlesError: the file does not exist, or as `read_titles`.
    """
    if FLAGS.titles is None:
        return dict(items.titles) if items.titles and items.names.names is not None else None
    if not Path(FLAGS.titles).is_file():
        raise TitlesError(f"--titles={FLAGS.titles}: no such file")
    return read_titles(Path(FLAGS.titles), items.names.items)


def filtered(items: Assortment, say: Callable[[str], None]) -> tuple[Assortment, UserFilters, tuple[str, ...]]:
    """Reads --allow and --exclude.

    Args:
      items: that the lists choose among.
      say: gets a line for unknown items that are left out.

    Returns:
      The items that are left for all users, the lists per user, and a fingerprint of
      these lists; empty without any.

    Raises:
      FilterFileError: a file cannot be read.
      CatalogError: no item is left.
    """
    allow, exclude = (_read(path, items, say) for path in (FLAGS.allow, FLAGS.exclude))
    for_all = {name: file.for_all for name, file in (("allow", allow), ("exclude", exclude)) if file is not None}
    excluded = for_all.get("exclude")
    try:
        left = items.only(for_all.get("allow"), NOTHING if excluded is None else excluded)
    except CatalogError as error:
        given = " ".join(f"--{name}={FLAGS[name].value}" for name in for_all)
        raise CatalogError(
            f"{given}: no item of the catalog, {items.names.described}, is left to list; correct the files"
        ) from error
    per_user = {"allow": allow, "exclude": exclude}
    per_user = {name: file for name, file in per_user.items() if file is not None and file.for_all is None}
    made_from = tuple(f"{name}={file.fingerprint}" for name, file in per_user.items())
    filters = UserFilters(per_user.get("allow"), per_user.get("exclude"), FLAGS.without_allow)
    return left, filters, (*made_from, FLAGS.without_allow) if made_from else ()


def _read(path: str | None, items: Assortment, say: Callable[[str], None]) -> FilterFile | None:
    return None if path is None else read_filter(Path(path), items.names, FLAGS.on_unknown, say)


def compared(
    users: Iterator[User], lists: Lists, own: Callable[[], Lists], trained: int, say: Callable[[str], None]
) -> Iterator[User]:
    """Compares the lists of the first users, as many as --compare_catalogs says.

    Args:
      users: who get lists.
      lists: by --catalog.
      own: makes the lists by the trained catalog.
      trained: number of items of the trained catalog.
      say: gets a line about what changed.

    Returns:
      All the users.
    """
    first = list(itertools.islice(users, FLAGS.compare_catalogs))
    if first:
        known = [User(user.user, user.items[user.items < trained]) for user in first]
        changed, new = catalog_changes(own()(known)[0], lists(first)[0], trained)
        share = f"of the first {len(first)} lists {changed:.1%} changed"
        say(f"{FLAGS.catalog}: {share}, and new items take {new:.1%} of the places")
    return itertools.chain(first, users)
