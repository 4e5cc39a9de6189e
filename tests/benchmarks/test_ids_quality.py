import dataclasses

import numpy as np
import pytest

from atspeed_jax.benchmarks.ids_quality import COMPARED, WAYS, codes_of, measure_ids_quality, texts_of
from atspeed_jax.data.sources import synthetic_world


@pytest.fixture(scope="module")
def world(small_config):
    return synthetic_world(small_config.data.synthetic)


@pytest.mark.parametrize("way", WAYS)
def test_ids_have_the_levels_and_codes_of_the_world(world, way):
    source, vectors = world
    codes = codes_of(way, source, vectors, seed=1)
    assert codes.shape == source.codes.shape
    assert (codes.max(0) < source.catalog.level_sizes).all()
    assert (codes == codes_of(way, source, vectors, seed=1)).all()


def test_words_say_where_a_vector_stands_out():
    vectors = np.array([[3.0, 0.0], [-3.0, 0.1], [0.0, 9.0]])
    assert texts_of(vectors) == ["high0 low1", "low0 low1", "high1"]
    assert texts_of(np.zeros((2, 3))) == ["plain", "plain"]


@pytest.mark.slow
def test_a_row_per_way_and_finished_targets_are_not_trained_again(small_config, tmp_path):
    train = dataclasses.replace(small_config.train_target, epochs=0.2, evaluations=1)
    config = dataclasses.replace(small_config, train_target=train)
    said = []
    rows = measure_ids_quality(config, range(1), tmp_path, said.append)
    assert [row["way"] for row in rows] == list(WAYS)
    assert {(row["way"], row["compared_with"]) for row in rows if row["compared_with"]} == set(COMPARED)
    assert len({tuple(row) for row in rows}) == 1, "a table has the same columns in all rows"
    assert all(0 <= row["recall@10"] <= 1 for row in rows)
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows if row["low"] is not None)
    before = (tmp_path / "text_0" / "target" / "metadata.json").stat().st_mtime_ns
    assert measure_ids_quality(config, range(1), tmp_path, said.append) == rows
    assert (tmp_path / "text_0" / "target" / "metadata.json").stat().st_mtime_ns == before
