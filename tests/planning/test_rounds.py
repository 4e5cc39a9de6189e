import dataclasses

import jax
import pytest

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.planning import rounds
from atspeed_jax.planning.rounds import PARTS, DecodeTimes, Programs
from atspeed_jax.planning.tpu import seconds, tpu_devices
from atspeed_jax.training.chips import CHIPS
from tpu_compiler import needs_tpu_compiler, no_tpu  # noqa: F401 (a fixture for all tests)

CATALOG = Catalog.random(60, (16,) * 2)
TARGET = LlamaConfig(CATALOG.vocab_size, 256, 512, 3, 2, 2, 128, 1e4, 1e-6, True, 0.0, "bfloat16", False)
DRAFT = dataclasses.replace(TARGET, hidden_size=128, intermediate_size=128, layers=1)


@pytest.fixture
def programs():
    search = SearchConfig((8,), 1, "vocab", beams=4)
    device = tpu_devices("v5e", 1)[0]
    return Programs(TARGET, DRAFT, search, build_trie(CATALOG.id_tokens), 1, 16, device, CHIPS["v5e"])


def test_seconds_of_some_rounds():
    times = DecodeTimes(8.0, 3.0, 2.0)
    assert times.speculative(1) == 3
    assert times.speculative(1.5) == 4


def test_further_layers_cost_what_the_second_costs(monkeypatch):
    """The compiler is stubbed: 5 seconds and 2 per layer."""
    monkeypatch.setattr(rounds, "seconds", lambda lowered, chip: lowered)
    monkeypatch.setattr(rounds, "PARTS", dict.fromkeys(PARTS, lambda one: 5 + 2 * one.target.layers))
    search = SearchConfig((8,), 1, "vocab", beams=4)
    found = Programs(TARGET, DRAFT, search, build_trie(CATALOG.id_tokens), 1, 16, None, CHIPS["v5e"]).times()
    assert found == DecodeTimes(11, 11, 11)


@needs_tpu_compiler
def test_a_tpu_compiles_every_part(programs):
    one = programs._with_layers(1)
    found = {name: seconds(lower(one), programs.chip) for name, lower in PARTS.items()}
    assert all(0 < value < 1e-2 for value in found.values())
    assert found["later"] < found["first"]


def test_a_shared_head_is_given_to_every_part_and_not_read():
    """By the products of the programs, lowered here: those of 12 tokens of 16 are left out."""
    search = SearchConfig((8,), 1, "vocab", beams=4)
    device = jax.devices()[0]
    whole = Programs(TARGET, DRAFT, search, build_trie(CATALOG.id_tokens), 1, 16, device, CHIPS["v5e"])
    headed = dataclasses.replace(whole, head=12)
    cost = {
        name: [lower(one).cost_analysis()["flops"] for one in (whole, headed)]
        for name, lower in (("first", Programs.first), ("later", Programs.later))
    }
    assert cost["first"][1] < 0.6 * cost["first"][0]  # the prompt of 4 tokens and 8 nodes, where it was 16
    assert cost["later"][1] == pytest.approx(cost["later"][0], rel=0.02)


@needs_tpu_compiler
@pytest.mark.slow
def test_layers_side_by_side_cost_alike(programs):
    few, many = programs.times(), programs._with_layers(3)
    for name, lower in PARTS.items():
        assert seconds(lower(many), programs.chip) == pytest.approx(getattr(few, name), rel=0.1)
