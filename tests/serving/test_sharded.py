"""Decoding on several devices is compared with one device in tests/training/test_sharding.py, beside training."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.items.trie import build_trie
from atspeed_jax.serving import sharded
from devices import report_of, whole_mesh

TRIE = build_trie(np.array([[0], [1]]))


@dataclasses.dataclass(frozen=True)
class Echo:
    """Stands for a decoder: the ids of a user are what it reads, and its rounds are the largest of them."""

    factor: int

    def __call__(self, params, trie, prompt: Prompt) -> Result:
        rows = prompt.tokens.shape[0]
        ids, zeros = params * self.factor * prompt.tokens, jnp.zeros((rows,))
        calls = ids.max(1)
        return Result(ids, ids[..., None], ids * 1.0, ids > 0, calls, zeros, calls, calls.max(), None)


def prompt(rows):
    tokens = jnp.arange(1, 1 + 2 * rows, dtype=jnp.int32).reshape(rows, 2)
    return Prompt(tokens, tokens > 0)


def test_rows_keep_their_places_and_nothing_is_added():
    result = sharded.decode_on_mesh(Echo(3), jnp.int32(5), TRIE, prompt(3), whole_mesh())
    np.testing.assert_array_equal(result.ids, 15 * np.arange(1, 7).reshape(3, 2))
    assert int(result.rounds) == 90
    assert result.round_one is None


def test_one_compilation_for_decoders_that_are_equal():
    before = sharded._decode._cache_size()
    for _ in range(2):
        sharded.decode_on_mesh(Echo(7), jnp.int32(5), TRIE, prompt(3), whole_mesh())
    assert sharded._decode._cache_size() == before + 1


@pytest.mark.parametrize(("sizes", "splits"), [((4, 1, 1), False), ((4, 2, 1), True), ((1, 1, 2), True)])
def test_axes_beside_data_split_the_models(sizes, splits):
    assert sharded.splits_models(AbstractMesh(sizes, ("data", "fsdp", "tensor"))) == splits
    assert not sharded.splits_models(None)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_filling_up_repeats_the_last_row(rows):
    filled = sharded._filled(jnp.arange(rows), -rows % 4)
    assert filled.shape == (rows + -rows % 4,)
    assert (filled[rows:] == rows - 1).all()


def test_no_slice_waits_for_another():
    """On four devices 6 users keep their places; the only word between slices is how many rounds the slowest took."""
    report = report_of("four_slices.py", 4)
    assert report["ids"] == (15 * np.arange(1, 13).reshape(6, 2)).tolist()
    assert report["rounds"] == 180
    assert report["collectives"] == ["all-reduce"]
    assert report["split"] == report["alone"]  # and each user kept its own list of ids it may not get
    for ids, excluded in zip(report["split"], report["excluded"], strict=True):
        assert not set(ids) & set(excluded)
    assert len({tuple(ids) for ids in report["split"]}) > 3
    read_once, whole = report["headed"]  # a head that all users share, whole on every device
    assert read_once == whole
    assert len({tuple(ids) for ids in whole}) > 3
