import dataclasses

import numpy as np
import pytest

import layouts
from atspeed_jax.data.batches import BatchShape, valid_batches
from atspeed_jax.data.dataset import Dataset, DatasetError, build_dataset, load_dataset
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.records import HeldOutRows, needed_files
from atspeed_jax.data.rows import Rows
from atspeed_jax.data.summary import summarize


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return read_source("lcrec_rows", layouts.write_lcrec_rows(tmp_path_factory.mktemp("rows") / "shop"))


def test_rows_come_back_as_they_were(source, tmp_path):
    build_dataset(source, tmp_path / "it")
    dataset = load_dataset(tmp_path / "it")
    assert dataset.fingerprint == Dataset.of(source).fingerprint
    for split, rows in source.rows.items():
        found = dataset.rows[split]
        np.testing.assert_array_equal(found.users, rows.users)
        np.testing.assert_array_equal(found.targets, rows.targets)
        assert [items.tolist() for items in found.histories] == [items.tolist() for items in rows.histories]
    needed_files(tmp_path / "it", rows=True)[-1].unlink()
    with pytest.raises(DatasetError, match=f"{HeldOutRows.name}/1.0.0/features.json: missing"):
        load_dataset(tmp_path / "it")


def test_fingerprint_covers_the_histories_of_rows(source):
    rows = source.rows["test"]
    histories = (rows.histories[0][1:], *rows.histories[1:])
    other = dataclasses.replace(source, rows=source.rows | {"test": Rows(rows.users, histories, rows.targets)})
    prints = [Dataset.of(one).fingerprint for one in (source, other, dataclasses.replace(source, rows={}))]
    assert len(set(prints)) == 3


def test_rows_that_are_not_those_of_the_splits(source):
    with pytest.raises(DatasetError, match=r"the valid items are not the targets of the valid rows"):
        Dataset.of(dataclasses.replace(source, valid=source.test))
    with pytest.raises(DatasetError, match=r"has rows of \['test'\]; expected"):
        Dataset.of(dataclasses.replace(source, rows={"test": source.rows["test"]}))
    strange = Rows.of([(0, [9], 3), (2, [], 1)])
    with pytest.raises(DatasetError, match=r"a valid row has a history with an item outside 0\.\.3"):
        Dataset.of(dataclasses.replace(source, rows=source.rows | {"valid": strange}))


def test_every_row_is_validated_on_with_its_history(source):
    dataset = Dataset.of(source)
    batches = valid_batches(dataset, BatchShape(2, (3,), 4), users=None, seed=0)
    (batch,) = batches
    tokens = dataset.catalog.tokens
    expected = [[1, *tokens([1, 2, 3]).reshape(-1)], [1, *tokens([1]).reshape(-1)]]
    assert [row[valid].tolist() for row, valid in zip(batch["tokens"][:2], batch["valid"][:2], strict=True)] == expected
    assert batch["predict"].sum(1).tolist() == [2, 2, 0, 0]
    (one,) = valid_batches(dataset, BatchShape(2, (3,), 4), users=1, seed=0)
    assert (one["predict"].sum(1) > 0).sum() == 1


def test_rows_are_counted(source):
    summary = summarize(Dataset.of(source))
    assert (summary.interactions, summary.train_only) == ((5, 2, 3), 0)
    assert not any("begin with the end of their own history" in warning for warning in summary.warnings)
