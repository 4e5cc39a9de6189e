from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ids.tables import item_table, read_interactions, read_items
from atspeed_jax.ids.vectors import bridged, check_kind, choose, fit_bridge, make_vectors
from shop_directory import item_columns, write_shop


def silent(_):
    pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    directory = write_shop(tmp_path_factory.mktemp("shop"))
    return read_items(directory / "items.parquet"), read_interactions(directory / "interactions.parquet", 60)


def new_items(count=3, **columns):
    return item_table(Path("new.csv"), pa.table(item_columns(count, first=60) | columns))


@pytest.mark.parametrize(("kind", "width"), [("text", 8), ("cooccurrence", 8), ("text+cooccurrence", 16)])
def test_vectors_of_every_kind(shop, kind, width):
    vectors, space = make_vectors(IdsConfig(vectors=kind, text="tfidf", dimensions=8), *shop, silent)
    assert vectors.shape == (60, width)
    assert (space.kind, space.width) == (kind, width)
    lengths = np.linalg.norm(vectors[:, :8], axis=1)
    seen = np.ones(60, bool)
    if kind == "cooccurrence":
        seen[np.setdiff1d(np.arange(60), shop[1].items[shop[1].split == 0])] = False
    np.testing.assert_allclose(lengths, seen, atol=1e-5)
    if kind == "cooccurrence":
        with pytest.raises(IdsError, match="made of co-occurrence alone"):
            space.of_new(new_items())
    else:
        assert space.of_new(new_items()).shape == (3, width)
        with pytest.raises(IdsError, match="item 'B061' has no text"):
            space.of_new(new_items(title=["a", None, "c"], text=["a", " ", "c"]))


def test_an_item_without_interactions_has_the_co_occurrence_that_its_text_foretells(shop):
    vectors, space = make_vectors(IdsConfig(vectors="text+cooccurrence", text="tfidf", dimensions=8), *shop, silent)
    np.testing.assert_allclose(vectors[59], space.of_texts(vectors[59:, :8])[0], atol=1e-5)
    np.testing.assert_allclose(vectors[59, 8:], bridged(vectors[59:, :8], space.bridge)[0], atol=1e-5)
    seen = shop[1].items[0]
    assert np.abs(vectors[seen, 8:] - bridged(vectors[seen : seen + 1, :8], space.bridge)[0]).max() > 0.01


def test_the_bridge_is_learned_from_items_that_have_both():
    texts = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    seen = texts @ np.array([[1, 0], [0, 2], [3, 0]], np.float32) + np.float32(1)
    hidden = np.where(np.arange(500)[:, None] < 400, seen, 0)
    np.testing.assert_allclose(bridged(texts, fit_bridge(texts, hidden)), seen, atol=0.05)


def test_auto_takes_what_the_items_have(shop):
    lines = []
    given = new_items(vector=[[1.0], [2.0], [3.0]])
    assert choose(given, lines.append) == "vector"
    assert choose(new_items(), lines.append) == "text+cooccurrence"
    assert choose(new_items(title=[None] * 3, text=["red", None, None]), lines.append) == "cooccurrence"
    assert lines[2] == "--vectors=cooccurrence: 1 of 3 items have a text"
    assert "new items cannot get such ids by --assign; for that, run build_ids with --vectors=text+co" in lines[3]
    assert choose(new_items(title=[None] * 3, text=[None] * 3, category=[None] * 3, brand=[None] * 3), lines.append)
    assert "launch.ingest with --items=FILE" in lines[5]
    vectors, space = make_vectors(IdsConfig(), given, shop[1], silent)
    np.testing.assert_array_equal(vectors, [[1], [2], [3]])
    with pytest.raises(IdsError, match=r"vectors of 2 numbers, but the codebooks were made of vectors of 1"):
        space.of_new(new_items(vector=[[1.0, 2.0]] * 3))


def test_a_file_of_vectors(shop, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((60, 4)))
    vectors, space = make_vectors(IdsConfig(vectors=str(tmp_path / "v.npy")), *shop, silent)
    assert (vectors.shape, space.kind) == ((60, 4), "vector")
    np.testing.assert_array_equal(space.of_new(new_items(), vectors[:3]), vectors[:3])
    check_kind(str(tmp_path / "v.npy"))
    check_kind("text")
    with pytest.raises(IdsError, match="--vectors=texts: expected auto, vector, text"):
        check_kind("texts")
