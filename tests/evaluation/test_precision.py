"""Speculation held against plain beam search itself, on made-up users."""

import dataclasses

import numpy as np
import pytest

from atspeed_jax.evaluation import precision
from atspeed_jax.serving.lists import Agreement

HOW = {"arithmetic": "bfloat16, logits in float32", "batch_size": 4, "samples": 200, "seed": 0}


def agreement(same: float, shared: float, gap: float, users: int = 100) -> Agreement:
    """So large a share of the users has the same list; all share items and gaps alike."""
    every = np.ones(users)
    return Agreement((np.arange(users) < same * users).astype(float), shared * every, gap * every, 2 * gap * every)


@pytest.mark.parametrize(
    ("changes", "low"),
    [
        ({"dtype": "bfloat16"}, True),
        ({"dtype": "float16"}, True),
        ({"dtype": "float32"}, False),
        ({"dtype": "float32", "precision": "high"}, True),
        ({"dtype": "float64"}, False),
    ],
)
def test_which_models_compute_below_float32(toy, changes, low):
    assert precision.is_low(dataclasses.replace(toy.decoders.target, **changes)) is low


@pytest.mark.parametrize(("size", "other"), [(64, 16), (4, 1), (3, 4), (1, 4)])
def test_the_other_batch_size_is_another(size, other):
    assert precision.other_batch_size(size) == other


@pytest.mark.parametrize(
    ("own", "loses_more"),
    [
        ((0.70, 0.99, 0.01), []),
        ((0.75, 1.0, 0.005), []),
        ((0.50, 0.99, 0.01), ["same_list"]),
        ((0.70, 0.98, 0.01), ["items_shared"]),
        ((0.70, 0.99, 0.02), ["score_gap"]),
    ],
)
def test_what_is_lost_beyond_what_plain_beam_search_loses_to_itself(own, loses_more):
    found = precision.compare(agreement(*own), agreement(0.70, 0.99, 0.01), **HOW)
    assert found["loses_more"] == loses_more
    assert found["itself"] == agreement(0.70, 0.99, 0.01).figures
    assert {name: found[name] for name in found["itself"]} == agreement(*own).figures


def test_a_difference_within_chance_is_no_loss():
    """One user of a hundred less has the same list."""
    assert precision.compare(agreement(0.69, 0.99, 0.01), agreement(0.70, 0.99, 0.01), **HOW)["loses_more"] == []
