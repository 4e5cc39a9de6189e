"""The RQ-VAE: what it learns, how gradients pass the quantizer, and its file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.ids.build import build, read_catalog
from atspeed_jax.ids.codebooks import Codebooks
from atspeed_jax.ids.model import read_model
from atspeed_jax.ids.rqvae import Autoencoder, RqvaeConfig, balancing_prices, quantize, train_rqvae
from atspeed_jax.ids.settings import IdsConfig
from shop_directory import write_shop

CONFIG = RqvaeConfig(hidden=16, latent=4, steps=60, batch=64, revive_every=10)
CENTERS = [jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.array([[0.5, 0.0], [-0.5, 0.0]])]


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    return (3 * rng.normal(size=(12, 6))[rng.integers(12, size=200)] + rng.normal(size=(200, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def trained(world):
    return train_rqvae(world, (8, 8), seed=0, config=CONFIG)


def test_vectors_are_explained_and_the_last_level_is_balanced(world, trained):
    autoencoder, books, codes = trained
    rebuilt = autoencoder.decode(books.reconstruct(codes))
    variance = ((world - world.mean(axis=0)) ** 2).sum()
    assert ((world - rebuilt) ** 2).sum() < 0.4 * variance
    assert np.bincount(codes[:, 1], minlength=8).max() <= 1.2 * 200 / 8
    assert codes.shape == (200, 2)
    np.testing.assert_array_equal(books.assign(autoencoder.encode(world))[:, 0], codes[:, 0])


def test_twins_have_equal_codes(world):
    twins = np.concatenate([world[:50], world[:1], world[:1]])
    codes = train_rqvae(twins, (4, 4), seed=0, config=RqvaeConfig(hidden=8, latent=4, steps=5, batch=32))[2]
    np.testing.assert_array_equal(codes[50:], codes[[0, 0]])


def test_a_stored_autoencoder_is_the_same(world, trained):
    again = Autoencoder.of_tensors(trained[0].to_tensors())
    np.testing.assert_array_equal(again.encode(world), trained[0].encode(world))
    np.testing.assert_array_equal(again.decode(world[:, :4]), trained[0].decode(world[:, :4]))
    with pytest.raises(KeyError):
        Autoencoder.of_tensors({})


def test_centers_move_to_their_vectors_and_nothing_else_does():
    latents = jnp.array([[4.4, 0.1], [-0.4, 0.0], [0.6, 0.2], [3.4, 0.0]])
    rounded, distance, codes = quantize(latents, CENTERS, 0.05)
    assert [code.tolist() for code in codes] == [[1, 0, 0, 1], [0, 1, 0, 1]]
    np.testing.assert_allclose(rounded, [[4.5, 0], [-0.5, 0], [0.5, 0], [3.5, 0]])
    assert float(distance) == pytest.approx(((latents - rounded) ** 2).sum(axis=1).mean())
    by_latents = jax.grad(lambda latents: quantize(latents, CENTERS, 0.05)[1])(latents)
    np.testing.assert_array_equal(by_latents, 0)
    by_centers = jax.grad(lambda centers: quantize(latents, centers, 0.05)[1])(CENTERS)
    np.testing.assert_allclose(by_centers[1][0], 2 * (rounded - latents)[np.array([0, 2])].sum(axis=0) / 4, atol=1e-6)


def test_prices_even_out_a_batch():
    distance = jnp.array([[0.1, 1.0]] * 6 + [[1.0, 0.1]] * 2)
    heat = 4.0 * 0.1
    prices = balancing_prices(distance, 4.0)
    before, after = (jax.nn.softmax(-cost / heat, axis=1).mean(axis=0) for cost in (distance, distance + prices))
    assert float(before[0]) > 0.65
    assert float(after[0]) == pytest.approx(0.5, abs=0.05)


def test_a_catalog_with_ids_of_an_rqvae(tmp_path, monkeypatch):
    directory = write_shop(tmp_path / "shop")
    config = IdsConfig(method="rqvae", levels=2, codes=8, text="tfidf", dimensions=6)
    monkeypatch.setattr("atspeed_jax.ids.rqvae.RqvaeConfig", lambda: CONFIG)
    built = build(directory, config, read_catalog(directory), lambda _: None)
    assert len(np.unique(built.codes, axis=0)) == 60
    (tmp_path / "model").write_bytes(built.model.to_bytes())
    read = read_model(tmp_path / "model")
    np.testing.assert_array_equal(read.assign(built.vectors), built.model.assign(built.vectors))
    assert isinstance(read.codebooks, Codebooks)
