"""Settings of the loop outside their range."""

import dataclasses

import pytest

from atspeed_jax.training.fit_config import FitConfigError
from atspeed_jax.utils.ranges import RangeError
from tests.training import toy


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("eval_every", 0), ("checkpoint_every", 0), ("log_every", -1), ("patience", -1)],
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(RangeError, match=f"^{name}={value}: expected a whole number, at least"):
        dataclasses.replace(toy.toy_config(), **{name: value})


def test_a_loop_longer_than_its_schedule_is_refused():
    with pytest.raises(FitConfigError, match=r"FitConfig\.steps = 61 goes beyond OptimConfig\.steps"):
        dataclasses.replace(toy.toy_config(), steps=61)
