"""Small files in the forms that Amazon and MovieLens publish."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

from atspeed_jax.ingest.formats import Form, items_form, log_form, open_as
from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import Files, Filters, IngestError, IngestSettings, Limits, Split

USERS = ("A1YJEY40YUW4SE", "A60XNB876KYML", "A3G6XNM240RMWA")
ITEMS = ("7806397051", "B0000ZW5TS", "B00021DVCQ", "B000A33D7M")
SECONDS = 1_390_953_600
EVENTS = [(user, item, SECONDS + 86_400 * (3 * n + m)) for m, user in enumerate(USERS) for n, item in enumerate(ITEMS)]


def lines_of(form, events=EVENTS):
    """The events as a file of this form has them, and the name of the file."""
    if form == "amazon2014.csv":
        return "ratings_Beauty.csv", "".join(f"{user},{item},5.0,{time}\n" for user, item, time in events)
    if form == "amazon2018.csv":
        return "Beauty.csv", "".join(f"{item},{user},5.0,{time}\n" for user, item, time in events)
    if form == "amazon2023.csv":
        rows = (f"{user},{item},5.0,{time}000\n" for user, item, time in events)
        return "Beauty.csv", "user_id,parent_asin,rating,timestamp\n" + "".join(rows)
    if form == "amazon2018.json":
        keys = ("reviewerID", "asin", "unixReviewTime")
        more = {"overall": 5.0, "reviewText": 'it, "works"', "reviewTime": "01 30, 2014", "helpful": [0, 1]}
        return "Beauty_5.json.gz", "\n".join(json.dumps(dict(zip(keys, event, strict=True)) | more) for event in events)
    keys = ("user_id", "parent_asin", "timestamp")
    more = {"rating": 5.0, "title": "Nice", "asin": "another", "verified_purchase": True}
    rows = ((user, item, 1000 * time) for user, item, time in events)
    return "Beauty.jsonl", "\n".join(json.dumps(dict(zip(keys, row, strict=True)) | more) for row in rows)


def write(directory, name, text, encoding="utf-8"):
    file = directory / name
    content = text.encode(encoding)
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(file)


def ingested(tmp_path, log, items=None, **files):
    config = IngestSettings(split=Split(valid_share=0.25, test_share=0.25), limits=Limits(1.0, 1), files=Files(**files))
    ingest(log, items, tmp_path / "DATA", config, lambda line: None)
    return {name: pq.read_table(tmp_path / "DATA" / f"{name}.parquet").to_pylist() for name in ("histories", "items")}


@pytest.mark.parametrize(
    "form", ["amazon2014.csv", "amazon2018.csv", "amazon2023.csv", "amazon2018.json", "amazon2023.json"]
)
@pytest.mark.parametrize("given", [False, True])
def test_amazon(tmp_path, form, given):
    log = write(tmp_path, *lines_of(form))
    found = ingested(tmp_path, log, **({"format": form.partition(".")[0]} if given else {}))
    assert found["histories"] == [{"user": user, "items": list(ITEMS)} for user in sorted(USERS)]
    times = pq.read_table(tmp_path / "DATA" / "interactions.parquet")["time"].to_pylist()
    assert sorted(times) == sorted(1000 * time for _, _, time in EVENTS)


def test_ratings_whose_user_is_unclear_are_refused(tmp_path):
    log = write(tmp_path, "ratings.csv", f"A{'B' * 12},A{'C' * 12},5.0,{SECONDS}\n")
    with pytest.raises(IngestError, match=r"line 1: .* which cell is the user is unclear: give --format=amazon2014"):
        log_form(log, Files())
    assert log_form(log, Files("amazon2018")).header == ("asin", "reviewerID", "overall", "unixReviewTime")


def test_ratings_of_other_names_need_their_format(tmp_path):
    log = write(tmp_path, "ratings.csv", f"i1,u1,5.0,{SECONDS}\n")
    assert log_form(log, Files()).header is None
    assert log_form(log, Files("amazon2014")).header == ("reviewerID", "asin", "overall", "unixReviewTime")
    assert log_form(log, Files("amazon2018")).header == ("asin", "reviewerID", "overall", "unixReviewTime")
    header = write(tmp_path, "headed.csv", "reviewerID,asin,overall,unixReviewTime\n")
    assert log_form(header, Files("amazon2014")).header is None


def test_the_papers_rule(tmp_path):
    """Ratings of 4 and 5, cuts at 80 % and 90 %, users of two training events; counted by hand."""
    days = [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("e", 4),
        ("b", 5),
        ("b", 6),
        ("b", 7),
        ("c", 8),
        ("c", 9),
        ("c", 10),
        ("a", 11),
    ]
    rows = [(user, f"i{(day - 1) % 3}" if user != "e" else "i4", 4 + day % 2, day) for user, day in days]
    rows.append(("a", "disliked", 3, 12))
    keys = ("reviewerID", "asin", "overall", "unixReviewTime")
    reviews = [dict(zip(keys, (*row[:3], SECONDS + 86_400 * row[3]), strict=True)) for row in rows]
    log = write(tmp_path, "reviews_Beauty_5.json.gz", "\n".join(map(json.dumps, reviews)))
    config = IngestSettings(filters=Filters(min_rating=4.0, min_train=2), limits=Limits(1.0, 1))
    record = ingest(log, None, tmp_path / "DATA", config, lambda line: None)
    assert [tuple(step.values()) for step in record["steps"]] == [
        ("read", 12, 4, 5),
        ("rated and in the time window", 11, 4, 4),
        ("repeated events removed", 11, 4, 4),
        ("users of 2 training events", 10, 3, 3),
    ]
    assert record["splits"] == {"train": 8, "valid": 1, "test": 1}
    found = pq.read_table(tmp_path / "DATA" / "interactions.parquet").to_pylist()
    assert [(row["user"], row["item"], row["split"]) for row in found if row["split"]] == [(0, 1, 2), (2, 0, 1)]


@pytest.mark.parametrize("literal", [True, False])
def test_metadata_of_amazon(tmp_path, literal):
    """Those of 2014 are Python literals, which are read but never run."""
    write_as = repr if literal else json.dumps
    entries = [
        {"asin": item, "title": f"It's {item}", "description": "d" if literal else ["d", "e"], "price": 6.99,
         "categories": [["Beauty", "Hair"]], "brand": "Øre", "related": {"also_bought": [item]}}
        for item in ITEMS
    ]  # fmt: skip
    items = write(tmp_path, "meta_Beauty.json.gz", "\n".join(map(write_as, entries)))
    found = ingested(tmp_path, write(tmp_path, *lines_of("amazon2014.csv")), items)["items"]
    assert found[0] == {
        "item": 0,
        "name": ITEMS[0],
        "title": f"It's {ITEMS[0]}",
        "text": "d" if literal else "d e",
        "category": "Beauty, Hair",
        "brand": "Øre",
        "price": "6.99",
    }
    assert sorted(file.name for file in (tmp_path / "DATA").iterdir())[-1] == "users.parquet"


@pytest.mark.parametrize("line", ["{'asin': open('x')}", "{'asin': ", "{'asin': {1, 2}}"])
def test_a_line_that_is_no_literal_is_named(tmp_path, line):
    items = write(tmp_path, "meta.json", "{'asin': 'B'}\n" + line + "\n")
    with pytest.raises(IngestError, match=r"meta\.json, line 2: .* is no Python literal; correct or remove the line"):
        ingested(tmp_path, write(tmp_path, *lines_of("amazon2014.csv")), items)
    assert not (tmp_path / "DATA").exists()


@pytest.mark.parametrize(
    ("log", "items", "separator", "encoding"),
    [
        ("ratings.dat", "movies.dat", "::", "latin-1"),
        ("ratings.dat", "movies.dat", "::", "utf-8"),  # as 10M has it
        ("u.data", "u.item", "\t", "latin-1"),
        ("ratings.csv", "movies.csv", ",", "utf-8"),
    ],
)
def test_movielens(tmp_path, log, items, separator, encoding):
    rows = [(n + 1, m + 10, 5, SECONDS + 7 * m + n) for n in range(3) for m in range(4)]
    header = "userId,movieId,rating,timestamp\n" if log == "ratings.csv" else ""
    events = write(tmp_path, log, header + "".join(separator.join(map(str, row)) + "\n" for row in rows))
    titles = [f'Café {n}: "the" film' for n in range(10, 14)]
    if items == "movies.csv":
        quoted = ('"' + title.replace('"', '""') + '"' for title in titles)
        text = "movieId,title,genres\n" + "".join(f"{n},{title},War|Drama\n" for n, title in enumerate(quoted, 10))
    elif items == "movies.dat":
        text = "".join(f"{n}::{title}::War|Drama\n" for n, title in enumerate(titles, 10))
    else:
        text = "".join(
            f"{n}|{title}|01-Jan-1995||http://x|{'|'.join('0' * 19)}\n" for n, title in enumerate(titles, 10)
        )
    movies = write(tmp_path, items, text, encoding)
    found = ingested(tmp_path, events, movies)
    assert found["histories"] == [{"user": n, "items": [10, 11, 12, 13]} for n in (1, 2, 3)]
    assert [item["title"] for item in found["items"]] == titles


def test_other_files_keep_their_columns(tmp_path):
    table = write(tmp_path, "a.csv", "1::2::3::4\n")
    assert log_form(table, Files("table")).header is None
    assert items_form(write(tmp_path, "b.csv", "item,title\n"), Files()).header is None


def test_an_encoding_is_that_of_files_that_are_no_utf_8(connection, tmp_path):
    given = Files(encoding="latin-1")
    for encoding in ("utf-8", "latin-1"):
        file = write(tmp_path, f"{encoding}.csv", "item,title\n1,Löffel\n", encoding)
        table = open_as(connection, str(file), items_form(str(file), given), given, tmp_path)
        assert connection.execute(f"SELECT title FROM {table.sql}").fetchall() == [("Löffel",)]
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(b"item,title\n" + bytes(range(48, 58)) * 999)[:-9])
    with pytest.raises(IngestError, match=r"torn\.csv\.gz: cannot be read"):
        open_as(connection, str(torn), Form(), given, tmp_path)
