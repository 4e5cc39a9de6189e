"""New items of a catalog, against the ids that they would have had."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from atspeed_jax.ids.assign import assign, read_known
from atspeed_jax.ids.build import build, read_catalog, write
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.utils.files import locked
from shop_directory import item_columns, write_shop

SMALL = {"levels": 2, "codes": 16, "text": "tfidf", "dimensions": 6}


def silent(_):
    pass


def made(directory, *, columns=None, **settings) -> Path:
    write_shop(directory, **(columns or {}))
    write(directory, build(directory, IdsConfig(**SMALL | settings), read_catalog(directory), silent), {})
    return directory


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return made(tmp_path_factory.mktemp("shop"))


def grown(directory, file, output="grown.parquet", vectors="auto", **options):
    """(index as columns, lines) of assign."""
    lines, place = [], file.parent / output
    options = {"index": None, "only_listed": False, "overwrite": False} | options
    assign(directory, str(file), vectors, output=str(place), say=lines.append, **options)
    return pq.read_table(place).to_pydict(), [line for line in lines if not line.startswith(str(file))]


def written(path, **columns):
    (pcsv.write_csv if path.suffix == ".csv" else pq.write_table)(pa.table(columns), path)
    return path


def test_known_items_keep_their_ids_and_new_ones_come_behind(shop, tmp_path):
    before = pq.read_table(shop / "index.parquet").to_pydict()
    columns = item_columns(4, first=58)  # two known ones, two new ones
    after, lines = grown(shop, written(tmp_path / "new.csv", **columns))
    assert after["item"] == list(range(62))
    assert after["name"] == [*before["name"], "B060", "B061"]
    assert after["codes"][:60] == before["codes"]
    assert after["title"][60:] == columns["title"][2:]
    assert len(set(map(tuple, after["codes"]))) == 62
    assert pq.read_schema(tmp_path / "grown.parquet") == pq.read_schema(shop / "index.parquet")
    assert lines[0] == "2 new items, 62 in all"
    same, _ = grown(shop, written(tmp_path / "new.parquet", **columns), "other.parquet")
    assert same == after


def test_a_grown_catalog_grows_again_and_may_lose_items(shop, tmp_path):
    first, _ = grown(shop, written(tmp_path / "a.csv", **item_columns(2, first=60)), "a.parquet")
    added = ["Z"], ["red"], ["x"]
    listed = {name: column[:30] + more for (name, column), more in zip(item_columns(60).items(), added, strict=True)}
    file = written(tmp_path / "b.csv", **listed)
    second, lines = grown(shop, file, "b.parquet", index=str(tmp_path / "a.parquet"), only_listed=True)
    assert lines[0] == "32 known items are not in b.csv and are left out"
    assert second["item"] == [*range(30), 62]
    assert second["codes"][:30] == first["codes"][:30]
    assert second["name"][-1] == "Z"
    taken = set(map(tuple, first["codes"]))
    assert tuple(second["codes"][-1]) not in taken  # not even those of items that were left out


@pytest.mark.parametrize("collisions", ["keep", "further", "move"])
def test_a_twin_of_a_known_item_is_reported(tmp_path, collisions):
    directory = made(tmp_path / "shop", vectors="text", collisions=collisions)
    twin = {name: column[3:4] for name, column in item_columns(60).items()} | {"name": ["twin"]}
    after, lines = grown(directory, written(tmp_path / "twin.csv", **twin))
    known, new = after["codes"][3], after["codes"][-1]
    assert lines[1].startswith("1 new items have the codes of another item, and ")
    assert lines[1].endswith(": 'twin'")
    assert len(known) == len(new)
    assert (known == new) == (collisions == "keep")
    if collisions == "further":
        assert known[:-1] == new[:-1]
        assert new[-1] == 1 + max(code[-1] for code in after["codes"][:-1] if code[:-1] == known[:-1])


def test_given_vectors_come_from_a_column_or_a_file(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    directory = made(tmp_path / "shop", columns={"vector": vectors.tolist()}, collisions="keep")
    known = pq.read_table(directory / "index.parquet").to_pydict()["codes"]
    texts = [json.dumps(row) for row in vectors[:2].tolist()]
    after, _ = grown(directory, written(tmp_path / "v.csv", name=["x", "y"], vector=texts))
    assert after["codes"][60:] == known[:2]
    np.save(tmp_path / "v.npy", vectors[[0, 5]])
    file = written(tmp_path / "n.csv", name=["B000", "z"])
    after, _ = grown(directory, file, "n.parquet", vectors=str(tmp_path / "v.npy"))
    assert after["codes"][60:] == known[5:6]
    with pytest.raises(IngestError, match="row 1: the vector of item 'x' has an entry that is no finite number"):
        grown(directory, written(tmp_path / "bad.csv", name=["x"], vector=["red"]), "bad.parquet")
    with pytest.raises(IdsError, match=r"vectors of 2 numbers, but the codebooks were made of vectors of 3"):
        grown(directory, written(tmp_path / "w.csv", name=["x"], vector=["[1, 2]"]), "w.parquet")


def test_whole_numbers_as_names(tmp_path):
    directory = made(tmp_path / "shop", columns={"name": list(range(100, 160))})
    columns = item_columns(2, first=60) | {"name": [160, 101]}
    after, _ = grown(directory, written(tmp_path / "new.csv", **columns))
    assert after["name"][-2:] == [159, 160]
    message = r"item 'B000' \(1 such items\) is no whole number, but .* numbers as names, such as 100; write names as"
    for name in ("text.csv", "text.parquet"):
        with pytest.raises(IdsError, match=message):
            grown(directory, written(tmp_path / name, **item_columns(1)), "t.parquet")
    with pytest.raises(IdsError, match="item '0160'"):
        grown(directory, written(tmp_path / "zero.csv", **columns | {"name": ["0160", "101"]}), "t.parquet")


def test_mistakes_leave_nothing_behind(shop, tmp_path):
    ok = written(tmp_path / "ok.csv", **item_columns(1, first=60))
    (tmp_path / "torn.csv").write_text("name,title\nx\n")
    cases = {
        "bare.csv": ({"title": ["a"]}, r"no column is known as the name of the item; it has title. Name it"),
        "empty.csv": ({"name": ["x", "y"], "title": ["a", ""]}, "item 'y' has no text"),
        "new.xlsx": (None, "no such file"),
        "gone.csv": (None, "no such file"),
        "torn.csv": (None, "cannot be read"),
    }
    for name, (columns, message) in cases.items():
        file = written(tmp_path / name, **columns) if columns else tmp_path / name
        with pytest.raises(ValueError, match=message):
            grown(shop, file)
    with pytest.raises(IdsError, match=r"--vectors=v\.npy: the ids of .* were made of text\+cooccurrence"):
        grown(shop, ok, vectors="v.npy")
    with pytest.raises(IdsError, match="--assign needs --output"):
        assign(shop, str(ok), "auto", index=None, output=None, only_listed=False, overwrite=False, say=silent)
    assert not list(tmp_path.glob("*.parquet"))
    grown(shop, ok)
    with pytest.raises(IdsError, match=r"exists already; .* --overwrite"):
        grown(shop, ok)
    grown(shop, ok, overwrite=True)


def test_ids_of_co_occurrence_say_how_new_items_get_ids(tmp_path):
    directory = made(tmp_path / "shop", vectors="cooccurrence")
    new = written(tmp_path / "new.csv", **item_columns(2, first=59))
    with pytest.raises(IdsError, match=r"no interactions: run build_ids with --vectors=text\+cooccurrence, and train"):
        grown(directory, new)
    write_shop(directory, title=None, text=None)
    with pytest.raises(IdsError, match=r"no interactions: give texts .*--items=FILE.*then run build_ids .* a new run"):
        grown(directory, new)
    listed = written(tmp_path / "known.csv", **item_columns(9))
    assert len(grown(directory, listed, only_listed=True)[0]["item"]) == 9  # no new item


def test_an_index_of_several_lengths_is_refused(tmp_path):
    path = written(tmp_path / "odd.parquet", item=[0, 1], name=["a", "b"], codes=[[1, 2], [1]])
    with pytest.raises(IdsError, match="all ids must have the same length"):
        read_known(path, "")


def test_the_file_is_read_as_that_of_launch_ingest(shop, tmp_path):
    """Semicolons, a BOM, JSON lines, other names of columns, quoted line breaks and several rows of an item."""
    columns = item_columns(2, first=60)
    expected, _ = grown(shop, written(tmp_path / "plain.csv", **columns), "plain.parquet")
    rows = list(zip(*columns.values(), strict=True))
    cases = {
        "semicolons.csv": "\ufeffSKU;Name;Description\r\n" + "".join(f'{a};"{b}";{c}\r\n' for a, b, c in rows),
        "lines.jsonl": "".join(json.dumps({"asin": a, "title": b, "text": c}) + "\n" for a, b, c in rows),
        "twice.tsv": "item\ttitle\ttext\n" + "".join("\t".join(row) + "\n" for row in (*rows, ("B060", "x", "y"))),
        "both.csv": "id,name,title,text\n" + "".join(f"{n},{a},{b},{c}\n" for n, (a, b, c) in enumerate(rows)),
    }
    for name, text in cases.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        found, lines = grown(shop, tmp_path / name, f"{name}.parquet")
        assert found == expected, name
        assert any("1 rows are of an item that has a row already" in line for line in lines) == (name == "twice.tsv")


def test_columns_and_encoding_that_launch_ingest_was_told_are_taken(shop, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(shop, directory)
    told = {"columns": {"item_name": "Nr", "title": "Bezeichnung", "item": None}, "files": {"encoding": "latin-1"}}
    (directory / "ingest.json").write_text(json.dumps({"settings": told}))
    file = tmp_path / "neu.csv"
    file.write_bytes("Nr,title,Bezeichnung\nZ1,no title,Löffel red\n".encode("latin-1"))
    found, _ = grown(directory, file)
    assert (found["name"][-1], found["title"][-1]) == ("Z1", "Löffel red")
    (directory / "ingest.json").write_text("{}")
    with pytest.raises(IngestError, match=r"ingest.json is damaged"):
        grown(directory, file, "other.parquet")


def test_an_index_of_other_codebooks_is_refused(shop, tmp_path):
    directory = made(tmp_path / "other", seed=5)
    new = written(tmp_path / "new.csv", **item_columns(1, first=60))
    with pytest.raises(IdsError, match=r"index.parquet was made with other codebooks than codebooks.safetensors"):
        grown(directory, new, index=str(shop / "index.parquet"))
    assert not (tmp_path / "grown.parquet").exists()
    grown(directory, new)
    again = written(tmp_path / "again.csv", **item_columns(1, first=61))
    with pytest.raises(IdsError, match=r"grown.parquet was made with other codebooks"):
        grown(shop, again, "b.parquet", index=str(tmp_path / "grown.parquet"))


def test_an_output_that_is_being_written_or_is_no_parquet_is_refused(shop, tmp_path):
    new = written(tmp_path / "new.csv", **item_columns(1, first=60))
    with locked(tmp_path / ".grown.parquet.lock"), pytest.raises(IdsError, match="is being written by another process"):
        grown(shop, new)
    with pytest.raises(IdsError, match=r"--output=.*new\.csv: an index is a parquet file; give a name that ends in"):
        grown(shop, new, "new.csv", overwrite=True)
    assert new.read_text().startswith('"name"')
