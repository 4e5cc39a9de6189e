import json

import pytest

import layouts
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.files import ReadSettings
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.sources import SourceError
from atspeed_jax.data.summary import summarize
from atspeed_jax.data.users import held_out_users
from atspeed_jax.items.item_index import IndexSettings


def test_leave_one_out(tmp_path):
    source = read_source("lcrec", layouts.write_lcrec(tmp_path / "shop"))
    assert (source.name, source.codes.tolist(), source.titles) == ("Beauty", layouts.IDS, layouts.TITLES)
    assert [items.tolist() for items in source.train] == [[0, 1, 2], [3], [1, 3]]
    assert [items.tolist() for items in source.valid] == [[3], [0], []]  # two items: trained on, never asked about
    assert [items.tolist() for items in source.test] == [[1], [2], []]
    assert source.rows == {}
    assert "1 users, who are never asked about" in summarize(Dataset.of(source)).text()
    test = held_out_users(Dataset.of(source), "test")
    assert [items.tolist() for items in test.histories] == [[0, 1, 2, 3], [3, 0]]


def test_rows_are_asked_one_by_one_and_trained_on_once(tmp_path):
    source = read_source("lcrec_rows", layouts.write_lcrec_rows(tmp_path / "shop"))
    assert [items.tolist() for items in source.train] == [[0, 1, 2], [3, 0], []]
    assert [items.tolist() for items in source.test] == [[1, 0], [2], []]
    dataset = Dataset.of(source)
    test, valid = held_out_users(dataset, "test"), held_out_users(dataset, "valid")
    assert test.users.tolist() == [0, 1, 0]
    assert [items.tolist() for items in test.histories] == [[0, 1, 2, 3], [3, 0], [2, 3, 1]]
    assert [items.tolist() for items in test.truths] == [[1], [2], [0]]
    assert (valid.users.tolist(), [items.tolist() for items in valid.histories]) == ([0, 2], [[0, 1, 2], []])
    assert dataset.popularity.tolist() == [2, 1, 1, 1]


def test_rows_that_do_not_join_train_as_further_users(tmp_path):
    directory = layouts.write_lcrec_rows(tmp_path / "shop")
    with (directory / "Beauty.train.inter").open("a") as file:
        file.write("7\t2 2\t1\n")
    source = read_source("lcrec_rows", directory)
    assert [items.tolist() for items in source.train] == [[0, 1, 2], [2, 2, 1], [], [3, 0]]
    assert len(source.valid) == len(source.test) == 4


def test_one_of_several_datasets_in_a_directory(tmp_path):
    for name in ("Beauty", "Toys"):
        layouts.write_lcrec(tmp_path / "shop", name)
    with pytest.raises(
        SourceError, match=r"files \*\.inter\.json of 2 datasets: Beauty, Toys; set config\.data\.dataset"
    ):
        read_source("lcrec", tmp_path / "shop")
    assert read_source("lcrec", tmp_path / "shop", ReadSettings("Toys")).name == "Toys"
    with pytest.raises(
        SourceError, match=r"no Games\.inter\.json, which config\.data\.dataset='Games' asks for; found: B"
    ):
        read_source("lcrec", tmp_path / "shop", ReadSettings("Games"))


def test_ids_of_mixed_length_are_cut(tmp_path):
    directory = layouts.write_lcrec(tmp_path / "shop")
    index = {str(item): layouts.tokens(item) for item in range(4)}
    index["2"].append("<c_0>")  # tells items 0 and 2 apart
    (directory / "Beauty.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"config\.data\.levels=2"):
        read_source("lcrec", directory)
    assert read_source("lcrec", directory, ReadSettings(index=IndexSettings(levels=2))).codes.tolist() == layouts.IDS


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"41": [0, 4]}, "Beauty.inter.json, user '41': item 4 is unknown; the index has items 0..3"),
        ({"41": [0, "1"]}, "user '41' has [0, '1']; expected a list of items"),
        ({"41": 3}, "user '41' has 3; expected"),
        ({"41": []}, "no interactions at all"),
        ([], "expected a non-empty JSON object"),
    ],
)
def test_bad_sequences(tmp_path, users, message):
    directory = layouts.write_lcrec(tmp_path / "shop")
    (directory / "Beauty.inter.json").write_text(json.dumps(users))
    with pytest.raises(SourceError) as error:
        read_source("lcrec", directory)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["41\t0 1"], "Beauty.test.inter, line 2: '41\\t0 1'; expected a user, items and an item"),
        (["41\t0 x\t1"], "line 2: '41\\t0 x\\t1'; expected"),
        (["41\t0 1\t"], "line 2: '41\\t0 1\\t'; expected"),
        (["41\t0 1\t2", "41\t0 9\t2"], "line 3: item 9 is unknown; the index has items 0..3"),
        (None, "line 1: 'user_id:token' has no column item_id_list"),
    ],
)
def test_bad_rows(tmp_path, lines, message):
    directory = layouts.write_lcrec_rows(tmp_path / "shop")
    text = "user_id:token" if lines is None else "\n".join([layouts.HEADER, *lines])
    (directory / "Beauty.test.inter").write_text(text + "\n")
    with pytest.raises(SourceError) as error:
        read_source("lcrec_rows", directory)
    assert message in str(error.value)


def test_missing_files(tmp_path):
    directory = layouts.write_lcrec_rows(tmp_path / "shop")
    (directory / "Beauty.valid.inter").unlink()
    with pytest.raises(SourceError, match=r"Beauty\.valid\.inter: no such file; train, valid and test are all needed"):
        read_source("lcrec_rows", directory)
    (directory / "Beauty.index.json").unlink()
    with pytest.raises(SourceError, match=r"needs one index of the items, .*Beauty.* found: none"):
        read_source("lcrec_rows", directory)
    with pytest.raises(SourceError, match=r"of 0 datasets: none; The layout 'lcrec' needs <ds>\.index\.json"):
        read_source("lcrec", directory)
