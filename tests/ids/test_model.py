import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atspeed_jax.ids.build import build, read_catalog
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.model import read_model
from atspeed_jax.ids.settings import IdsConfig
from shop_directory import write_shop


def silent(_):
    pass


def test_a_stored_model_gives_the_same_ids(tmp_path):
    directory = write_shop(tmp_path / "shop")
    config = IdsConfig(levels=2, codes=8, text="tfidf", dimensions=6, collisions="keep")
    built = build(directory, config, read_catalog(directory), silent)
    (tmp_path / "model").write_bytes(built.model.to_bytes())
    read = read_model(tmp_path / "model")
    assert read.config == config
    np.testing.assert_array_equal(read.assign(built.vectors), built.codes)
    np.testing.assert_array_equal(read.space.encoder(built.items.texts), built.vectors[:, :6])
    np.testing.assert_array_equal(read.space.of_new(built.items)[:, :6], built.vectors[:, :6])


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(IdsError, match="make ids in"):
        read_model(tmp_path / "none")
    (tmp_path / "torn").write_bytes(b"torn")
    save_file({"a": np.zeros(1)}, tmp_path / "other")
    for name in ("torn", "other"):
        with pytest.raises(IdsError, match=f"{name} is damaged .*; make the ids again"):
            read_model(tmp_path / name)
    save_file({"a": np.zeros(1)}, tmp_path / "later", {"ids": '{"format": 2}'})
    with pytest.raises(IdsError, match="another version"):
        read_model(tmp_path / "later")
    assert load_file(tmp_path / "later")
