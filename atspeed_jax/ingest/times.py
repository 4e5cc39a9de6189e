"""Times of a log, in any unit, as milliseconds since 1970 in UTC.

The unit is found once for the whole log. A log of two units, or of times with and
without a time zone, is refused: nobody could tell what came first.
"""

from __future__ import annotations

import datetime

import duckdb

from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.tables import Table, column, line_of_row, quoted
from atspeed_jax.ingest.text_files import explained

# Numbers below a bound are of that unit: 10**11 seconds end in the year 5138, and 10**11 milliseconds in 1973.
_UNITS = {"seconds": 10.0**11, "milliseconds": 10.0**14, "microseconds": 10.0**17, "nanoseconds": 10.0**20}
_LEAST = dict(zip(list(_UNITS)[1:], _UNITS.values(), strict=False))  # seconds begin at 0
_TO_MS = {"seconds": "* 1000", "milliseconds": "", "microseconds": "/ 1000", "nanoseconds": "/ 1000000"}
_ZONE = "[0-9]([zZ]|[ ]?[A-Z]{3,}|[ ][A-Za-z_]+/[A-Za-z_/+-]+|[+-][0-9]{2}(:?[0-9]{2})?)$"  # behind minutes or seconds
_EXPECTED = (
    "expected a number such as 1400000000, or a date such as 2024-05-01 or 2024-05-01 12:30:00+02:00; dates of "
    "another form need --time_format, such as --time_format=%d.%m.%Y"
)
_FIRST_DAY, _LAST_DAY = 19_000_101, 21_001_231  # days as numbers of 8 digits
UNKNOWN_TIMES = (
    "a time at or before the start of 1970 often stands for an unknown time; correct or remove these rows, or leave "
    "them out with --since, such as --since=2000-01-01"
)


def milliseconds(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, form: str | None = None
) -> tuple[str, str]:
    """Finds how the times of a column are written.

    Args:
      connection: that reads the table.
      table: of the log.
      name: of the column.
      form: of dates, as strptime of DuckDB reads it; None for numbers and ISO dates.

    Returns:
      (an SQL expression of the column in milliseconds since 1970, which is NULL for a
      time that is written in another way; what was found).

    Raises:
      IngestError: a time that cannot be read, two units, days as numbers, or times with
        and without a time zone; it names rows.
    """
    if form is not None:
        return _by_form(connection, table, name, form)
    kind = _kind(connection, table, name)
    text, number = f"trim({column(name)}::VARCHAR)", f"try_cast({column(name)} AS DOUBLE)"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_ms({column(name)}::TIMESTAMPTZ)", kind.lower()
    is_number = f"coalesce(isfinite({number}), false)"
    is_date = f"coalesce(isfinite(TRY_CAST({text} AS TIMESTAMPTZ)), false)"
    zoned = f"regexp_matches({text}, '{_ZONE}')"
    zoned = f"(length({text}) > 10 AND {zoned})"
    with explained(table.name):
        row = connection.execute(
            f"SELECT count(*), count(*) FILTER ({is_number}), "
            f"min({number}) FILTER ({is_number} AND {number} > 0), max({number}) FILTER ({is_number}), "
            f"count(*) FILTER (NOT {is_number} AND {is_date}), "
            f"count(*) FILTER (NOT {is_number} AND {is_date} AND {zoned}) FROM {table.sql}"
        ).fetchone()
    assert row is not None
    rows, numbers, least, most, dates, with_zone = row
    if not rows:
        raise IngestError(f"{table.name}: no rows at all; expected a row per event.")
    if numbers + dates < rows:
        bad = first_row(connection, table, f"NOT coalesce({is_number} OR {is_date}, false)", name)
        raise IngestError(f"{bad}: cannot be read as a time; {_EXPECTED}.")
    if numbers and dates:
        one, other = (first_row(connection, table, of, name) for of in (is_number, f"NOT {is_number}"))
        raise IngestError(f"{one} is a number, but {other} is a date; write all times in one way.")
    if dates:
        if 0 < with_zone < dates:
            one, other = (first_row(connection, table, of, name) for of in (zoned, f"NOT {zoned}"))
            raise IngestError(f"{one} names a time zone, but {other} names none; write all times in one way.")
        alike = zoned if with_zone else f"NOT {zoned}"
        said = "dates with time zone" if with_zone else "dates, taken as UTC"
        return f"CASE WHEN {alike} THEN epoch_ms(TRY_CAST({text} AS TIMESTAMPTZ)) END", said
    return _by_number(connection, table, name, (most if least is None else least, most))


def _by_number(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, ends: tuple[float, float]
) -> tuple[str, str]:
    """Finds the unit of numbers, see `milliseconds`.

    Args:
      connection: that reads the table.
      table: of the log.
      name: of the column, of numbers alone.
      ends: the least number above 0, as those below say nothing about the unit, and
        the largest.
    """
    number, (least, most) = f"try_cast({column(name)} AS DOUBLE)", ends
    if _are_days(connection, table, number):
        bad = first_row(connection, table, f"{number} IS NOT NULL", name)
        raise IngestError(
            f"{bad}: a day as a number of 8 digits would be read as seconds in 1970; write dates such as "
            f"{_written(least)}, or give --time_format=%Y%m%d."
        )
    unit, unit_of_least = _unit(most), _unit(least)
    if unit is None or unit_of_least is None:
        bad = first_row(connection, table, f"abs({number}) = {max(abs(least), abs(most))!r}", name)
        raise IngestError(f"{bad}: is no time in seconds to nanoseconds since 1970; {_EXPECTED}.")
    if unit != unit_of_least:
        one, other = (first_row(connection, table, f"{number} = {value!r}", name) for value in (least, most))
        raise IngestError(
            f"{one} is in {unit_of_least} since 1970 ({_day(least, unit_of_least)}), but {other} in {unit} "
            f"({_day(most, unit)}); write all times in one unit."
        )
    alike = f"abs({number}) < {_UNITS[unit]!r}"
    if unit in _LEAST:
        alike += f" AND ({number} <= 0 OR {number} >= {_LEAST[unit]!r})"
    return f"CASE WHEN {alike} THEN CAST(floor({number} {_TO_MS[unit]}) AS BIGINT) END", f"{unit} since 1970"


def _by_form(connection: duckdb.DuckDBPyConnection, table: Table, name: str, form: str) -> tuple[str, str]:
    """Reads dates of a form, see `milliseconds`."""
    text = f"trim({column(name)}::VARCHAR)"
    moment = f"epoch_ms(try_strptime({text}, {quoted(form)})::TIMESTAMPTZ)"
    try:
        connection.execute(f"SELECT try_strptime('', {quoted(form)})")
    except duckdb.Error as error:
        raise IngestError(
            f"--time_format={form} cannot be used ({str(error).splitlines()[0]}); expected a form such as %d.%m.%Y."
        ) from error
    with explained(table.name):
        row = connection.execute(f"SELECT count(*), count({moment}) FROM {table.sql}").fetchone()
    assert row is not None
    if not row[0]:
        raise IngestError(f"{table.name}: no rows at all; expected a row per event.")
    if row[1] < row[0]:
        bad = first_row(connection, table, f"{moment} IS NULL", name)
        raise IngestError(f"{bad}: cannot be read as a time of --time_format={form}; correct the time or the flag.")
    return moment, f"dates of the form {form}"


def _are_days(connection: duckdb.DuckDBPyConnection, table: Table, number: str) -> bool:
    """Whether all numbers are days, such as 20140501."""
    day = f"try_strptime(format('{{:d}}', CAST({number} AS BIGINT)), '%Y%m%d') IS NOT NULL"
    is_day = f"{number} BETWEEN {_FIRST_DAY} AND {_LAST_DAY} AND {number} = trunc({number})"
    with explained(table.name):
        found = connection.execute(
            f"SELECT bool_and(CASE WHEN {is_day} THEN {day} ELSE false END) FROM {table.sql}"
        ).fetchone()
    return bool(found and found[0])


def _written(day: float) -> str:
    """A day as a number, as a date."""
    digits = str(int(day))
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def moment(ms: int) -> str:
    """A time in milliseconds since 1970, as a date; the time of day too if it is not 0."""
    found = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return str(found).removesuffix(" 00:00:00")


def _kind(connection: duckdb.DuckDBPyConnection, table: Table, name: str) -> str:
    """The type of a column."""
    with explained(table.name):
        return str(connection.execute(f"DESCRIBE SELECT {column(name)} FROM {table.sql}").fetchall()[0][1])


def _unit(value: float) -> str | None:
    return next((unit for unit, bound in _UNITS.items() if abs(value) < bound), None)


def _day(value: float, unit: str) -> str:
    """The day of a number of that unit."""
    ms = {"seconds": value * 1e3, "milliseconds": value, "microseconds": value / 1e3, "nanoseconds": value / 1e6}[unit]
    return str((datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)).date())


def first_row(connection: duckdb.DuckDBPyConnection, table: Table, condition: str, name: str) -> str:
    """Describes the first row that a condition holds for, as file, row and content."""
    numbered = f"SELECT row_number() OVER () AS row_number_, * FROM {table.sql}"
    found = connection.execute(
        f"SELECT row_number_, {column(name)} FROM ({numbered}) WHERE {condition} ORDER BY row_number_ LIMIT 1"
    ).fetchone()
    if found is None:
        return table.name
    line = line_of_row(table, found[0])
    where = f"row {found[0]}" if line is None else f"line {line}"
    is_empty = found[1] in (None, "")
    return f"{table.name}, {where}: {name} " + ("(the cell is empty)" if is_empty else repr(found[1]))
