import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layouts
from atspeed_jax.data.layouts import LAYOUTS, needs, read_source
from atspeed_jax.data.sources import SourceError

WRITERS = {name: getattr(layouts, f"write_{name}") for name in ("lcrec", "lcrec_rows", "minionerec", "p5", "ingested")}


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_is_found_by_its_files(tmp_path, name):
    directory = WRITERS[name](tmp_path / "shop")
    assert [one for one, layout in LAYOUTS.items() if layout.fits(directory)] == [name]
    found, given = read_source("auto", directory), read_source(name, directory)
    assert found.codes.tolist() == given.codes.tolist() == layouts.IDS
    assert [items.tolist() for items in found.train] == [items.tolist() for items in given.train]


def test_atspeed_is_found(tmp_path, write_layout):
    source = read_source("auto", write_layout(tmp_path / "shop", layouts.IDS, {1: ([0, 1], [2], [3])}))
    assert [items.tolist() for items in source.test] == [[3]]


def test_layouts_that_are_not_clear(tmp_path):
    directory = layouts.write_lcrec(layouts.write_lcrec_rows(tmp_path / "shop"))
    with pytest.raises(
        SourceError, match=r"files of 2 layouts: set config\.data\.source\. 'lcrec' reads .*Found: Beauty\.in"
    ):
        read_source("auto", directory)
    assert read_source("lcrec", directory).rows == {}


def test_a_directory_of_no_layout(tmp_path):
    table = pa.table({"pid": [70, 71], "sid": [[1, 2], [3, 4]]})
    pq.write_table(table, tmp_path / "pid2sid.parquet")
    with pytest.raises(
        SourceError, match=r"no known layout\. 'atspeed' needs .*'p5' needs .*Found: pid2sid\.parquet\. A c"
    ):
        read_source("auto", tmp_path)
    with pytest.raises(SourceError, match="no such data directory"):
        read_source("auto", tmp_path / "none")
    assert needs("lcrec") in str(LAYOUTS["lcrec"].needs)
    assert "lcrec_rows, minionerec" in needs("auto")
