"""Which columns of a table are the user, the item, the time and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.tables import Table

# Usual names of the column of items, in a log and in an item file.
ITEM_COLUMNS = (
    *("item_id", "itemid", "item", "parent_asin", "asin", "movieid", "movie_id", "product_id", "productid"),
    *("product", "article_id", "business_id", "sku", "iid"),
)


def said(table: Table, found: Mapping[str, str]) -> str:
    """Says which columns were taken for which roles."""
    return f"{table.name}: " + ", ".join(f"{role} = {name}" for role, name in found.items())


def named_columns(table: Table, wanted: Mapping[str, str | None], usual: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Finds the columns of a table.

    Args:
      table: that has them.
      wanted: role -> the name that the user gave, or None.
      usual: role -> names that are taken if the user gave none, the best first, in
        small letters. A capital letter or a type behind a colon does not matter.

    Returns:
      role -> column, of the roles that have one.

    Raises:
      IngestError: a column that the user named is missing.
    """
    plain = {name.partition(":")[0].strip().lower(): name for name in reversed(table.columns)}
    found = {}
    for role, given in wanted.items():
        if given is not None:
            if given not in table.columns:
                raise IngestError(
                    f"{table.name}: no column {given!r} for the {role}; it has {', '.join(table.columns)}."
                )
            found[role] = given
            continue
        for name in usual.get(role, ()):
            if name in plain and plain[name] not in found.values():
                found[role] = plain[name]
                break
    return found


def need(table: Table, found: Mapping[str, str], roles: Sequence[str], flags: Mapping[str, str]) -> None:
    """Checks that the roles have a column.

    Raises:
      IngestError: one has none, or one of objects; it lists the columns that may be.
    """
    for role in (role for role in roles if found.get(role) in table.objects):
        keys = ", ".join(name for name in table.columns if name.startswith(f"{found[role]}."))
        raise IngestError(
            f"{table.name}: column {found[role]} for the {role} holds objects; name one of their keys by "
            f"--{flags[role]}=NAME: {keys}."
        )
    missing = [role for role in roles if role not in found]
    if missing:
        given = " ".join(f"--{flags[role]}=NAME" for role in missing)
        wanted, has = " or the ".join(map(_plain, missing)), ", ".join(table.columns)
        raise IngestError(f"{table.name}: no column is known as the {wanted}; it has {has}. Name it: {given}.")


def _plain(role: str) -> str:
    """A role in words."""
    return "name of the item" if role == "item_name" else role
