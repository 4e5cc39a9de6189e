"""A pair comes back from its file as it was, finds its lists at any size, and damage is named."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import save

from atspeed_jax.benchmarks.pair import PairError, read_pair, write_pair
from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.wide_shapes import Shape, widened_config
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting
from tiny_pair import tiny_pair


def test_a_pair_comes_back_as_it_was(tmp_path):
    pair = tiny_pair()
    pair = dataclasses.replace(
        pair, target=dataclasses.replace(pair.target, rope_scaling=RopeScalingConfig("linear", 2.0))
    )
    write_pair(tmp_path / "x.pack", pair)
    back = read_pair(tmp_path / "x.pack")
    for name in ("target", "draft", "decode", "fingerprint"):
        assert getattr(back, name) == getattr(pair, name)
    for name in ("target_params", "draft_params", "id_tokens", "id_counts", "users", "tokens"):
        jax.tree.map(np.testing.assert_array_equal, getattr(back, name), getattr(pair, name))
    assert back.head.tolist() == []
    headed = dataclasses.replace(pair, head=np.array([1, 5], np.int32))
    write_pair(tmp_path / "headed.pack", headed)
    assert read_pair(tmp_path / "headed.pack").head.tolist() == [1, 5]
    assert headed.fingerprint != pair.fingerprint


def test_the_fingerprint_is_of_all_that_decodes():
    pair = tiny_pair()
    others = [
        dataclasses.replace(pair, target_params=jax.tree.map(lambda x: x * 2, pair.target_params)),
        dataclasses.replace(pair, draft=dataclasses.replace(pair.draft, norm_eps=1e-5)),
        dataclasses.replace(pair, tokens=pair.tokens[:, 1:]),
    ]
    assert len({pair.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("unrolled", [False, True], ids=["stacked", "side by side"])
def test_the_lists_of_a_larger_target_are_those_of_the_pair(unrolled):
    pair = tiny_pair()
    prompt = prompt_of(pair.batches(9, 4, 4, least=1)[0])
    setting = Setting.beam_search(3, "vocab")
    want = pair.decoders(pair.target, unrolled=False).build(setting)(prompt)
    big = widened_config(pair.target, "larger", Shape(12, 16, 2, 16, 16, 8))
    decoders = pair.decoders(big, unrolled=unrolled)
    assert ("layers" in decoders.target_params) != unrolled
    assert not differing(decoders.build(setting)(prompt), want).any()


def test_batches_hold_the_users_whose_prompts_fit():
    pair = tiny_pair()
    batches = pair.batches(6, 2, 5)
    assert [batch["tokens"].shape for batch in batches] == [(2, 7)] * 3
    assert np.concatenate([batch["user"] for batch in batches]).tolist() == [100, 101, 103, 104, 106, 107]
    assert np.concatenate([batch["row"] for batch in batches]).tolist() == list(range(6))
    for batch in batches:
        assert ((batch["tokens"] != PAD) == batch["valid"]).all()
    others = pair.batches(6, 2, 4, least=1, others=True)
    assert np.concatenate([batch["user"] for batch in others]).tolist() == [110, 109, 107, 106]
    longer = pair.batches(15, 1, 1)
    assert len(longer) == 3
    assert longer[0]["tokens"].shape == (1, 16)


def test_bad_prompts_are_named():
    message = r"prompt=2, batch=1: 0 of the pair's 12 prompts have at most 2 tokens \(they have 3 to 9\)"
    with pytest.raises(PairError, match=message):
        tiny_pair().batches(2, 1, 1)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(PairError, match=r"there is no file .*none\.pack; write it in the checkout with .*--pack=FILE"):
        read_pair(tmp_path / "none.pack")
    with pytest.raises(PairError, match=f"{tmp_path} is a directory, expected the file of a packed pair; write it"):
        read_pair(tmp_path)
    (tmp_path / "other.pack").write_bytes(save({"x": np.ones(2)}))
    with pytest.raises(PairError, match=r"other\.pack is of format None, expected 'atspeed_jax pair 1'"):
        read_pair(tmp_path / "other.pack")
    write_pair(tmp_path / "cut.pack", tiny_pair())
    (tmp_path / "cut.pack").write_bytes((tmp_path / "cut.pack").read_bytes()[:-9])
    with pytest.raises(PairError, match=r"cut\.pack is damaged"):
        read_pair(tmp_path / "cut.pack")
