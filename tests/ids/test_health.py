"""Figures of ids, on ids whose figures are known."""

import numpy as np
import pytest

from atspeed_jax.ids import health as module
from atspeed_jax.ids.build import build, read_catalog
from atspeed_jax.ids.collisions import groups
from atspeed_jax.ids.health import branching, collisions, health, maps, neighbors, prefixes_of, usage, warnings
from atspeed_jax.ids.settings import IdsConfig
from shop_directory import write_shop

CODES = np.array([[0, 0], [0, 0], [0, 1], [2, 1]])


def test_collisions_are_counted():
    assert collisions(groups(CODES)) == {"ids": 3, "collided_items": 2, "largest_group": 2}


def test_use_and_entropy_of_a_level():
    level = usage(np.array([0, 0, 1, 1, 2, 2, 3, 3]), 8)
    assert (level["used"], level["entropy_bits"], level["most_bits"], level["largest_of_mean"]) == (4, 2.0, 3.0, 2.0)
    assert level["counts"] == [2, 2, 2, 2, 0, 0, 0, 0]
    assert usage(np.zeros(5, int), 4)["entropy_bits"] == 0


def test_branching_counts_the_next_codes_of_prefixes():
    assert branching(prefixes_of(CODES)) == [
        {"depth": 0, "prefixes": 1, "children": 2.0, "most": 2},
        {"depth": 1, "prefixes": 2, "children": 1.5, "most": 2},
    ]


def test_nearest_neighbors_share_codes_or_not(monkeypatch):
    latents = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 0], [2, 0]])
    monkeypatch.setattr(module, "_CHUNK", 2)
    first, second = neighbors(latents, prefixes_of(codes), 0)
    assert (first["share"], second["share"]) == (0.8, 0.4)
    assert first["by_chance"] == pytest.approx((4 + 4 + 1) / 25)
    assert neighbors(latents[:1], prefixes_of(codes[:1]), 0) == []


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = write_shop(tmp_path_factory.mktemp("shop"))
    config = IdsConfig(levels=2, codes=16, text="tfidf", dimensions=6)
    built = build(directory, config, read_catalog(directory), lambda _: None)
    return built, health(built)


def test_the_figures_of_a_catalog(found):
    built, measured = found
    figures = measured.figures
    assert (figures["items"], figures["ids"], figures["collided_items"]) == (60, 60, 0)
    assert figures["collided_before"] > 0
    assert figures["unexplained"][0] > figures["unexplained"][1] > 0
    centered = built.vectors - built.vectors.mean(axis=0)
    left = built.vectors - built.model.codebooks.reconstruct(built.codes)
    assert figures["unexplained"][1] == pytest.approx((left**2).sum() / (centered**2).sum(), rel=1e-5)
    trained = np.isin(built.log.items, built.log.items[built.log.split == 0])
    tested = built.log.split == 2
    assert figures["untrained"]["interactions"] == pytest.approx((~trained[tested]).mean())
    assert figures["neighbors"][0]["share"] > 3 * figures["neighbors"][0]["by_chance"]
    for name, count in (("PCA", 60), ("t-SNE", 60)):
        places, first = measured.maps[name]
        assert places.shape == (count, 2)
        assert np.isfinite(places).all()
        assert set(first) <= set(built.codes[:, 0])


def test_vectors_of_one_number_have_a_plane():
    found = maps(np.arange(8.0)[:, None], np.arange(8), 0)
    assert list(found) == ["PCA"]
    assert found["PCA"][0].shape == (8, 2)
    assert maps(np.ones((1, 3)), np.arange(1), 0)["PCA"][0].tolist() == [[0, 0]]


def test_warnings_say_what_is_wrong_in_words(found):
    fine = found[1].figures
    level = {"codes": 256, "used": 256, "entropy_bits": 7.5, "most_bits": 8.0}
    fine = fine | {"items": 1_000, "levels": [level], "untrained": {"interactions": 0.1}}
    assert warnings(fine) == []
    cases = {
        "level 2 uses 3 of 256 codes: collapsed": {"levels": [level, level | {"used": 3}]},
        "level 1 uses 100 of 256 codes: fewer codes would do": {"levels": [level | {"used": 100}]},
        "level 1 is uneven (3.0 of 8.0 bits)": {"levels": [level | {"entropy_bits": 3.0}]},
        "200 of 1000 items share their id": {"collided_items": 200},
        "60 items share one id": {"largest_group": 60},
        "the codes explain only 5% of the variance": {"unexplained": [0.97, 0.95]},
        "only 10% of items share the first code": {"neighbors": [{"share": 0.1}]},
        "30% of test interactions are of items that are never trained on": {"untrained": {"interactions": 0.3}},
    }
    for text, changed in cases.items():
        (said,) = warnings(fine | changed)
        assert text in said
