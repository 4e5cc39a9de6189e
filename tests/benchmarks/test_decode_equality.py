"""Lists of suite `decode` beside those of plain beam search: of `generate`, and below float32."""

import dataclasses
import importlib.util
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from atspeed_jax.benchmarks import decode, decode_equality
from atspeed_jax.benchmarks.decode import measure_decode
from atspeed_jax.benchmarks.decode_bench import Timed
from atspeed_jax.benchmarks.decode_cells import Tree, Way
from atspeed_jax.benchmarks.decode_floor import Ceilings
from atspeed_jax.benchmarks.hugging_face import HuggingFace
from atspeed_jax.models.wide_shapes import SHAPES
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting
from tiny_pair import LARGER, suite_with, tiny_pair

HAVE_BOTH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(decode, "measure_ceilings", lambda _: Ceilings(1e9, 1e9))
    monkeypatch.setitem(SHAPES, "larger", LARGER)


@pytest.mark.skipif(not HAVE_BOTH, reason="needs torch and transformers: pip install -r tests/hugging_face.txt")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beams", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_generate_gives_the_lists_of_plain_beam_search(tmp_path, beams):
    suite = suite_with(methods=("plain", "hf"), beams=(beams,), batches=(2,), parts=True)
    rows = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)
    assert [(row["shape"], row["method"]) for row in rows] == [
        (shape, name) for shape in suite.shapes for name in ("plain", "hf")
    ]
    for row in rows:
        assert row["equal"] is True
        assert row["same_list"] == 1
        assert row["target_calls_mean"] == 3
        assert (row["settings"] == "generate") == (row["method"] == "hf") == (row["target_part_ms"] is None)


@pytest.mark.skipif(not HAVE_BOTH, reason="needs torch and transformers: pip install -r tests/hugging_face.txt")
@pytest.mark.filterwarnings("ignore")
def test_lists_of_another_model_are_not_equal(monkeypatch, tmp_path):
    of = HuggingFace.of

    def another(decoders, ids):
        params = jax.tree.map(lambda leaf: 2 * leaf, decoders.target_params)
        return of(dataclasses.replace(decoders, target_params=params), ids)

    monkeypatch.setattr(HuggingFace, "of", another)
    suite = suite_with(shapes=("pair",), methods=("plain", "hf"))
    _, row = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)
    assert row["equal"] is False
    assert row["mismatched_users"] > 0
    assert row["ratio_to_plain"] is None


def test_below_float32_lists_are_compared_with_plain_itself(tmp_path):
    suite = suite_with(shapes=("pair",), methods=("plain", "speculative"), noise=True)
    suite = dataclasses.replace(suite, dtype="bfloat16", trees=(Tree(("all", "all")),))
    rows = measure_decode(tiny_pair(), suite, tmp_path / "rows.json", lambda _: None)
    assert rows[1]["agreement"]["itself_batch_size"] == 4
    assert rows[1]["mismatched_users"] == 0


@pytest.fixture(scope="module")
def plain():
    """(plain beam search of 6 users of the pair, their batches)."""
    pair = tiny_pair()
    setting, batches = Setting.beam_search(2, "vocab"), pair.batches(9, 1, 6, least=1)
    decode = pair.decoders(pair.target, unrolled=False).build(setting)
    decoded = decode_users(decode, batches, 6)
    return Timed(Way("plain", "strict", setting), decode, None, decoded, 0.0, np.zeros((1, 6))), batches


def test_plain_beam_search_in_other_batches_has_every_user_once(plain):
    timed, batches = plain
    other = decode_equality._in_other_batches(timed, batches)
    assert other.batches == 2
    assert not differing(other, timed.decoded).any()


@pytest.mark.parametrize(("items", "equal"), [("shared", True), ("others", False)])
def test_below_float32_generate_is_held_to_the_items_it_shares(plain, items, equal):
    timed, batches = plain
    lists = timed.decoded
    found = dataclasses.replace(lists, score=lists.score + 1, tokens=lists.tokens + (items == "others"))
    asked = dataclasses.replace(timed, way=dataclasses.replace(timed.way, method="hf"), decoded=found)
    low = SimpleNamespace(target=dataclasses.replace(tiny_pair().target, dtype="bfloat16"))
    row = decode_equality.equality(SimpleNamespace(suite=suite_with(), decoders=low), asked, timed, batches)
    assert (row["equal"], row["mismatched_users"]) == (equal, 0)
