import pytest

from atspeed_jax.ids.settings import IdsConfig, default_size


@pytest.mark.parametrize(
    ("items", "size"),
    [(1, (3, 8)), (300, (3, 32)), (1_000, (3, 64)), (12_000, (4, 256)), (500_000, (4, 256)), (2_000_000, (4, 2048))],
)
def test_small_catalogs_have_fewer_codes(items, size):
    assert default_size(items) == size
    assert size[1] ** size[0] >= items


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": 9}, "levels=9: expected a whole number, at least 1 and at most 8"),
        ({"codes": 1}, "codes=1: expected a whole number, at least 2"),
        ({"levels": 8, "collisions": "further"}, "levels=8 with collisions=further"),
    ],
)
def test_a_setting_outside_its_range_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        IdsConfig(**given)
