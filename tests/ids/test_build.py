import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from atspeed_jax.ids.build import build, new_ids, read_catalog, write
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.settings import IdsConfig
from shop_directory import cluster_of, write_shop

SMALL = {"levels": 3, "codes": 8, "text": "tfidf", "dimensions": 6}


def silent(_):
    pass


def held(directory, **settings):
    return new_ids(directory, IdsConfig(**SMALL | settings), overwrite=False)


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def test_every_item_has_an_id_of_its_own_and_the_index_follows_the_items(shop):
    lines = []
    built = build(shop, IdsConfig(**SMALL), read_catalog(shop), lines.append)
    write(shop, built, {"note.txt": "Köln"})
    assert (shop / "note.txt").read_text(encoding="utf-8") == "Köln"
    index = pq.read_table(shop / "index.parquet").to_pydict()
    items = pq.read_table(shop / "items.parquet").to_pydict()
    assert index["item"] == list(range(60))
    assert (index["name"], index["title"]) == (items["name"], items["title"])
    assert index["codes"] == built.codes.tolist()
    assert len(set(map(tuple, index["codes"]))) == 60
    assert any("text+cooccurrence" in line for line in lines)
    with new_ids(shop, IdsConfig(**SMALL), overwrite=True):
        pass
    with pytest.raises(IdsError, match=r"index.parquet already, .*--overwrite"), held(shop):
        pass
    assert not list(shop.glob(".*")), "neither locks nor halves of files are left"


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
    with pytest.raises(IdsError, match="no such directory"), held(shop / "none"):
        pass
    assert sorted(shop.iterdir()) == [path for path in before if path.name != "interactions.parquet"]


def test_a_build_that_was_killed_before_the_index_is_made_again(shop):
    write(shop, build(shop, IdsConfig(**SMALL), read_catalog(shop), silent), {})
    codebooks, index = (shop / "codebooks.safetensors").read_bytes(), (shop / "index.parquet").read_bytes()
    (shop / "index.parquet").unlink()
    with held(shop):
        write(shop, build(shop, IdsConfig(**SMALL), read_catalog(shop), silent), {})
    assert (shop / "codebooks.safetensors").read_bytes() == codebooks
    assert (shop / "index.parquet").read_bytes() == index
    (shop / "index.parquet").unlink()
    with (
        pytest.raises(IdsError, match=r"codebooks.safetensors of other settings and no index.parquet.*move"),
        held(shop, seed=3),
    ):
        pass


def test_two_at_once_and_a_directory_that_cannot_be_written_are_refused(shop, monkeypatch):
    with held(shop), pytest.raises(IdsError, match=r"another process makes ids in .*shop; wait for it"), held(shop):
        pass
    with held(shop):
        pass  # free again
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(IdsError, match=r"cannot be written \(.*Read-only file system\).*make it writable"), held(shop):
        pass


def test_a_disk_that_fills_up_leaves_the_old_ids(shop, monkeypatch):
    config = IdsConfig(**SMALL)
    write(shop, build(shop, config, read_catalog(shop), silent), {"ids_report.txt": "old"})
    before = {file.name: file.read_bytes() for file in shop.iterdir()}
    other = build(shop, IdsConfig(**SMALL | {"seed": 4}), read_catalog(shop), silent)
    synced = iter(range(9))

    def full(_):
        if next(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(shop, other, {"ids_report.txt": "new"})
    assert {file.name: file.read_bytes() for file in shop.iterdir()} == before
