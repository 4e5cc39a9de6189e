import json

import pytest

import layouts
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.sources import SourceError


def test_leave_one_out_with_items_from_1_on(tmp_path):
    source = read_source("p5", layouts.write_p5(tmp_path / "beauty"))
    assert (source.name, source.codes.tolist(), source.titles) == ("beauty", layouts.IDS, layouts.TITLES)
    assert [items.tolist() for items in source.train] == [[0, 1, 2], [3], [1, 3]]
    assert [items.tolist() for items in source.test] == [[1], [2], []]


def test_ids_that_are_missing(tmp_path):
    directory = layouts.write_p5(tmp_path / "beauty")
    (directory / "beauty.index.json").unlink()
    with pytest.raises(SourceError, match=r"but no ids of the items.*put a <ds>\.index\.json beside it"):
        read_source("p5", directory)


def test_maps_of_other_items(tmp_path):
    directory = layouts.write_p5(tmp_path / "beauty")
    (directory / "datamaps.json").write_text(json.dumps({"item2id": {"B0": "1"}}))
    with pytest.raises(SourceError, match=r"datamaps\.json: item2id has 1 items, but .*beauty\.index\.json has 4"):
        read_source("p5", directory)


def test_bad_lines(tmp_path):
    directory = layouts.write_p5(tmp_path / "beauty")
    (directory / "sequential_data.txt").write_text("1 2 5\n")
    with pytest.raises(SourceError, match=r"sequential_data\.txt, line 1: item 5 is unknown; the index has 4 items"):
        read_source("p5", directory)
    (directory / "sequential_data.txt").unlink()
    with pytest.raises(SourceError, match=r"sequential_data\.txt: no such file\. The layout 'p5' needs"):
        read_source("p5", directory)
