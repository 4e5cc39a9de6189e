import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.tables import fingerprint, index_bytes, read_columns, read_interactions, read_items
from atspeed_jax.items.index_file import read_index
from atspeed_jax.items.item_index import IndexSettings, SourceError
from shop_directory import write_shop


def test_names_titles_and_texts_are_read(tmp_path):
    columns = {
        "title": ["red", None, ""],
        "text": ["lips ", "hair", None],
        "brand": [None, "X", None],
        "price": [1] * 3,
    }
    table = read_items(write_shop(tmp_path, items=3, **columns) / "items.parquet")
    assert table.names == ("B000", "B001", "B002")
    assert table.titles == ("red", None, "")
    assert table.texts == ("red lips", "X hair", "")
    assert table.vectors is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a", "b", "a"]}, "items 0 and 2 are both called 'a'"),
        ({"name": ["a", None, "c"]}, "the name of item 1 is None"),
        ({"item": [0, 2, 1]}, "row 1 is item 2; row n must be item n"),
        ({"name": None}, r"but not \['name'\]"),
    ],
)
def test_items_that_cannot_be_used(tmp_path, columns, message):
    with pytest.raises(IdsError, match=message):
        read_items(write_shop(tmp_path, items=3, **columns) / "items.parquet")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(IdsError, match=r"items.parquet: no such file; .*launch.ingest"):
        read_items(tmp_path / "items.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(IdsError, match="cannot be read as parquet"):
        read_columns(tmp_path / "torn.parquet", (), "make it again")
    pq.write_table(pa.table({"item": pa.array([], pa.int32()), "name": pa.array([], pa.string())}), tmp_path / "none")
    with pytest.raises(IdsError, match="no items"):
        read_items(tmp_path / "none")


def test_interactions_are_of_items_that_exist(tmp_path):
    path = write_shop(tmp_path) / "interactions.parquet"
    log = read_interactions(path, 60)
    assert len(log.users) == len(log.items) == len(log.split) == 401
    assert set(log.split) == {0, 1, 2}
    with pytest.raises(IdsError, match=r"is of item 59, but items\.parquet has 59 items"):
        read_interactions(path, 59)


def test_an_index_has_the_types_of_its_columns(tmp_path):
    items = read_items(write_shop(tmp_path, items=2, name=[7, 9], title=["a", None]) / "items.parquet")
    (tmp_path / "index.parquet").write_bytes(index_bytes([0, 5], items, np.array([[1, 2], [3, 4]]), (4, 8), b"books"))
    table = pq.read_table(tmp_path / "index.parquet")
    kinds = {"item": "int64", "name": "int64", "title": "string", "codes": "list<element: int32>"}
    assert {field.name: str(field.type) for field in table.schema} == kinds
    assert table.to_pylist()[1] == {"item": 5, "name": 9, "title": None, "codes": [3, 4]}


def test_an_index_keeps_the_sizes_of_the_codebooks(tmp_path):
    items = read_items(write_shop(tmp_path, items=2, name=[7, 9], title=["a", None]) / "items.parquet")
    file = tmp_path / "index.parquet"
    file.write_bytes(index_bytes([0, 1], items, np.array([[1, 2], [3, 4]]), (4, 8), b"books"))
    index = read_index(file)
    assert index.level_sizes == index.catalog.level_sizes == (4, 8)
    assert index.codebooks == fingerprint(b"books") != fingerprint(b"other")
    assert read_index(file, IndexSettings(levels=1)).catalog.level_sizes == (4,)
    file.write_bytes(index_bytes([0, 1], items, np.array([[1, 2], [3, 4]]), (4, 4), b"books"))
    with pytest.raises(SourceError, match="code 4 at level 1, but the codebook of that level has 4 codes"):
        read_index(file)
