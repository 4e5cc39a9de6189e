"""New items of a catalog, against the ids that they would have had."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from atspeed_jax.ids.assign import assign, read_known, read_new
from atspeed_jax.ids.build import build, read_catalog, write
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import IdsConfig
from shops import item_columns, write_shop

SMALL = {"levels": 2, "codes": 16, "text": "tfidf", "dimensions": 6}


def silent(_):
    pass


def made(directory, *, columns=None, **settings) -> Path:
    write_shop(directory, **(columns or {}))
    write(directory, build(directory, IdsConfig(**SMALL | settings), read_catalog(directory), silent))
    return directory


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return made(tmp_path_factory.mktemp("shop"))


def grown(directory, file, output="grown.parquet", vectors="auto", **options):
    """(index as columns, lines) of assign."""
    lines, place = [], file.parent / output
    options = {"index": None, "only_listed": False, "overwrite": False} | options
    assign(directory, file, vectors, output=str(place), say=lines.append, **options)
    return pq.read_table(place).to_pydict(), lines


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
    with pytest.raises(IdsError, match="vector 'red' is no JSON list"):
        read_new(written(tmp_path / "bad.csv", name=["x"], vector=["red"]), pa.string())
    with pytest.raises(IdsError, match=r"vectors of 2 numbers, but the codebooks were made of vectors of 3"):
        grown(directory, written(tmp_path / "w.csv", name=["x"], vector=["[1, 2]"]), "w.parquet")


def test_whole_numbers_as_names(tmp_path):
    directory = made(tmp_path / "shop", columns={"name": list(range(100, 160))})
    columns = item_columns(2, first=60) | {"name": [160, 101]}
    after, _ = grown(directory, written(tmp_path / "new.csv", **columns))
    assert after["name"][-2:] == [159, 160]
    with pytest.raises(IdsError, match="cannot be read"):
        grown(directory, written(tmp_path / "text.csv", **item_columns(1)), "t.parquet")
    with pytest.raises(IdsError, match="no int64"):
        grown(directory, written(tmp_path / "text.parquet", **item_columns(1)), "t.parquet")


def test_mistakes_leave_nothing_behind(shop, tmp_path):
    ok = written(tmp_path / "ok.csv", **item_columns(1, first=60))
    (tmp_path / "torn.csv").write_text("name,title\nx\n")
    cases = {
        "twice.csv": ({"name": ["x", "x"], "title": ["a", "b"]}, "items 0 and 1 are both called 'x'"),
        "bare.csv": ({"title": ["a"]}, r"has columns \['title'\]; expected name or item"),
        "empty.csv": ({"name": ["x", "y"], "title": ["a", ""]}, "item 'y' has no text"),
        "new.json": (None, "unknown form"),
        "gone.csv": (None, "no such file"),
        "torn.csv": (None, "cannot be read"),
    }
    for name, (columns, message) in cases.items():
        file = written(tmp_path / name, **columns) if columns else tmp_path / name
        with pytest.raises(IdsError, match=message):
            grown(shop, file)
    with pytest.raises(IdsError, match=r"--vectors=v\.npy: the ids of .* were made of text\+cooccurrence"):
        grown(shop, ok, vectors="v.npy")
    with pytest.raises(IdsError, match="--assign needs --output"):
        assign(shop, ok, "auto", index=None, output=None, only_listed=False, overwrite=False, say=silent)
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
    with pytest.raises(IdsError, match="ids of several lengths"):
        read_known(path)
