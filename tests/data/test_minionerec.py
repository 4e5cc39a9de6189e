import shutil

import pytest

import layouts
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.files import ReadSettings
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.sources import SourceError
from atspeed_jax.data.users import held_out_users


def check(source):
    assert (source.codes.tolist(), source.titles) == (layouts.IDS, layouts.TITLES)
    assert [items.tolist() for items in source.train] == [[0, 1, 2], [3, 0], []]
    test = held_out_users(Dataset.of(source), "test")
    assert (test.users.tolist(), [row.tolist() for row in test.truths]) == ([0, 1, 0], [[1], [2], [0]])
    assert [items.tolist() for items in test.histories] == [[0, 1, 2, 3], [3, 0], [2, 3, 1]]


def test_rows_and_info_in_folders(tmp_path):
    check(read_source("minionerec", layouts.write_minionerec(tmp_path / "Amazon")))


def test_files_side_by_side_and_an_index(tmp_path):
    directory = layouts.write_minionerec(tmp_path / "Amazon")
    for split in ("train", "valid", "test"):
        shutil.move(directory / split / "Industrial_5_2016.csv", directory / f"Industrial_{split}.csv")
    shutil.rmtree(directory / "info")
    layouts.write_index(directory / "index", "Industrial")
    check(read_source("minionerec", directory))


def test_one_of_several_datasets(tmp_path):
    directory = layouts.write_minionerec(tmp_path / "Amazon")
    for folder, ending in (("train", "csv"), ("valid", "csv"), ("test", "csv"), ("info", "txt")):
        shutil.copy(directory / folder / f"Industrial_5_2016.{ending}", directory / folder / f"Office_5.{ending}")
    with pytest.raises(
        SourceError, match=r"needs one train CSV file, found: train/Industrial.*train/Office_5\.csv\. Set"
    ):
        read_source("minionerec", directory)
    source = read_source("minionerec", directory, ReadSettings("Office"))
    assert source.name == "Office"
    check(source)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"[0, 1, 2, 3]",1', '"[0, 1, 2, 9]",1', r"line 2: item 9 is unknown; the index has items 0\.\.3"),
        (
            '"[0, 1, 2, 3]",1',
            '"[0, 1, 2, 3",1',
            r"line 2: .*'history_item_id': '\[0, 1, 2, 3'.*expected a user, a list",
        ),
        ('"[0, 1, 2, 3]",1', '"[0, 1, 2, 3]",x', r"line 2: .*'item_id': 'x'"),
        (",<a_1><b_2>\n", ",<a_1><b_3>\n", r"line 2: item 1 has the id '<a_1><b_3>', but '<a_1><b_2>' in .*2016\.txt"),
        ("\"['<a_3><b_0>', '<a_1>", "\"['<a_3><b_1>', '<a_1>", r"line 2: item 0 has the id '<a_3><b_1>'"),
        ("\"['<a_3><b_0>', '<a_1><b_2>', ", '"[', r"line 2: history_item_sid .* expected a list of 4 ids"),
        ("history_item_id", "ids", r"line 1: has columns .*, but not history_item_id"),
    ],
)
def test_bad_rows(tmp_path, old, new, message):
    directory = layouts.write_minionerec(tmp_path / "Amazon")
    file = directory / "test" / "Industrial_5_2016.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(SourceError, match=r"test/Industrial_5_2016\.csv, " + message):
        read_source("minionerec", directory)


def test_missing_files(tmp_path):
    directory = layouts.write_minionerec(tmp_path / "Amazon")
    shutil.rmtree(directory / "info")
    with pytest.raises(
        SourceError, match=r"no \*\.index\.json and no info file .*The layout 'minionerec' needs one CSV"
    ):
        read_source("minionerec", directory)
    shutil.rmtree(directory / "valid")
    with pytest.raises(SourceError, match=r"needs one valid CSV file, found: none\. The layout"):
        read_source("minionerec", directory)
