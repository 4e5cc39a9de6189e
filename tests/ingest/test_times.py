import pytest

from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.tables import open_table
from atspeed_jax.ingest.times import milliseconds, moment

MS = 1_400_000_000_123  # 2014-05-13 16:53:20.123 UTC


@pytest.mark.parametrize(
    ("text", "expected", "how"),
    [
        ("1400000000", MS - 123, "seconds since 1970"),
        ("1400000000.123", MS, "seconds since 1970"),
        ("1.4e9", MS - 123, "seconds since 1970"),
        (str(MS), MS, "milliseconds since 1970"),
        (f"{MS}456", MS, "microseconds since 1970"),
        (f"{MS}456789", MS, "nanoseconds since 1970"),
        ("-86400", -86_400_000, "seconds since 1970"),
        ("2014-05-13 16:53:20.123", MS, "dates, taken as UTC"),
        ("2014-05-13T16:53:20.123Z", MS, "dates with time zone"),
        ("2014-05-13 18:53:20.123+02:00", MS, "dates with time zone"),
        ("2014-05-13 18:53:20.123 Europe/Berlin", MS, "dates with time zone"),
        ("2014-05-13 11:53:20.123 EST", MS, "dates with time zone"),
        ("2014-05-13", MS - 123 - 60_800_000, "dates, taken as UTC"),
    ],
)
def test_every_unit_becomes_milliseconds(connection, table, text, expected, how):
    found = table(f"t\n{text}\n")
    sql, said = milliseconds(connection, found, "t")
    assert (connection.execute(f"SELECT {sql} FROM {found.sql}").fetchall(), said) == ([(expected,)], how)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("TIMESTAMP", MS), ("TIMESTAMP_NS", MS), ("TIMESTAMPTZ", MS), ("DATE", MS - 123 - 60_800_000)],
)
def test_times_of_parquet(connection, tmp_path, kind, expected):
    connection.execute(f"COPY (SELECT '2014-05-13 16:53:20.123'::{kind} AS t) TO '{tmp_path}/t.parquet'")
    found = open_table(connection, f"{tmp_path}/t.parquet")
    sql, _ = milliseconds(connection, found, "t")
    assert connection.execute(f"SELECT {sql} FROM {found.sql}").fetchall() == [(expected,)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1400000000\nsoon\n", r"line 3: t 'soon': cannot be read as a time; expected a number such as"),
        (
            "1400000000\n1400000000123\n",
            r"line 2: t '1400000000' is in seconds .*\(2014-05-13\), but .*line 3: .*mil",
        ),
        ("1400000000\n2014-05-13\n", r"line 2: t '1400000000' is a number, but .*line 3: t '2014-05-13' is a date"),
        ("2014-05-13 10:00Z\n2014-05-13 10:00\n", r"line 2: .* names a time zone, but .*line 3: .* names none"),
        ("2014-05-13 10:00\n2014-05-13 10:00 Asia/Tokyo\n", r"line 3: .* names a time zone, but .*line 2: .* none"),
        ("1400000000\n\nsoon\n", r"line 3: t \(the cell is empty\): cannot be read"),
        ("1400000000\nnan\n", r"line 3: t 'nan': cannot be read as a time"),
        ("1400000000\ninf\n", r"line 3: t 'inf': cannot be read as a time"),
        ("1e30\n", r"line 2: t '1e30': is no time in seconds to nanoseconds"),
        ("", r"log\.csv: no rows at all"),
        (
            "20140513\n20140501\n",
            r"line 2: t '20140513': a day as a number .*such as 2014-05-01, .*--time_format=%Y%m%d",
        ),
        ("13.05.2014\n", r"line 2: t '13\.05\.2014': cannot be read .*--time_format=%d\.%m\.%Y"),
        ('1400000000\n""\n', r"line 3: t \(the cell is empty\): cannot be read as a time"),
    ],
)
def test_times_that_cannot_be_compared_are_refused(connection, table, lines, message):
    with pytest.raises(IngestError, match=message):
        milliseconds(connection, table(f"t\n{lines}"), "t")


def test_numbers_of_8_digits_that_are_no_days_are_seconds(connection, table):
    assert milliseconds(connection, table("t\n20140513\n20141399\n"), "t")[1] == "seconds since 1970"


@pytest.mark.parametrize(
    ("text", "form"),
    [("13.05.2014", "%d.%m.%Y"), ("20140513", "%Y%m%d"), ("05/13/2014 02:00 +0200", "%m/%d/%Y %H:%M %z")],
)
def test_dates_of_another_form(connection, table, text, form):
    found = table(f"t\n {text}\n")
    sql, said = milliseconds(connection, found, "t", form)
    assert connection.execute(f"SELECT {sql} FROM {found.sql}").fetchall() == [(MS - 123 - 60_800_000,)]
    assert said == f"dates of the form {form}"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%d.%m.%Y", r"line 3: t '05/13/2014': cannot be read as a time of --time_format=%d\.%m\.%Y"),
        ("%d.%", r"--time_format=%d\.% cannot be used .*expected a form such as"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(connection, table, form, message):
    with pytest.raises(IngestError, match=message):
        milliseconds(connection, table("t\n13.05.2014\n05/13/2014\n"), "t", form)


def test_moments_are_dates():
    assert moment(MS - 123) == "2014-05-13 16:53:20"
    assert moment(MS - 123 - 60_800_000) == "2014-05-13"
