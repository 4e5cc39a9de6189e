"""Settings of the loop outside their range."""

import dataclasses

import pytest

from atspeed_jax.training.fit_config import FitConfigError
from tests.training import toy


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("eval_every", 0), ("checkpoint_every", 0), ("log_every", -1), ("patience", -1), ("steps", 61)],
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(FitConfigError, match=f"FitConfig.{name} = {value}"):
        dataclasses.replace(toy.toy_config(), **{name: value})
