import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from atspeed_jax.ids.build import build, check_new, read_catalog, write
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import IdsConfig
from shops import cluster_of, write_shop

SMALL = {"levels": 3, "codes": 8, "text": "tfidf", "dimensions": 6}


def silent(_):
    pass


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def test_every_item_has_an_id_of_its_own_and_the_index_follows_the_items(shop):
    lines = []
    built = build(shop, IdsConfig(**SMALL), read_catalog(shop), lines.append)
    write(shop, built)
    index = pq.read_table(shop / "index.parquet").to_pydict()
    items = pq.read_table(shop / "items.parquet").to_pydict()
    assert index["item"] == list(range(60))
    assert (index["name"], index["title"]) == (items["name"], items["title"])
    assert index["codes"] == built.codes.tolist()
    assert len(set(map(tuple, index["codes"]))) == 60
    assert any("text+cooccurrence" in line for line in lines)
    check_new(shop, overwrite=True)
    with pytest.raises(IdsError, match=r"index.parquet and codebooks.safetensors already.*--overwrite"):
        check_new(shop, overwrite=False)


def test_first_codes_are_the_clusters_of_the_texts(shop):
    built = build(shop, IdsConfig(**SMALL | {"codes": 5, "levels": 4}), read_catalog(shop), silent)
    assert adjusted_rand_score(cluster_of(60), built.codes[:, 0]) > 0.9


def test_a_further_code_makes_ids_longer(shop):
    config = IdsConfig(**SMALL | {"codes": 2, "levels": 2}, collisions="further")
    built = build(shop, config, read_catalog(shop), silent)
    assert built.codes.shape == (60, 3)
    assert len(np.unique(built.codes, axis=0)) == 60


def test_bad_settings_end_before_anything_is_read_or_written(shop):
    before = sorted(shop.iterdir())
    (shop / "interactions.parquet").unlink()
    with pytest.raises(IdsError, match="60 items, but 3 levels of 2 codes tell only 8 apart"):
        build(shop, IdsConfig(**SMALL | {"codes": 2}), read_catalog(shop), silent)
    with pytest.raises(IdsError, match=r"--vectors=nothing\.npy"):
        build(shop, IdsConfig(**SMALL, vectors="nothing.npy"), read_catalog(shop), silent)
    with pytest.raises(IdsError, match="no such directory"):
        check_new(shop / "none", overwrite=False)
    assert sorted(shop.iterdir()) == [path for path in before if path.name != "interactions.parquet"]
