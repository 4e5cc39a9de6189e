import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.items.vocabulary import Vocabulary
from atspeed_jax.models.hf_config import HFConfigError
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import PretrainedConfig, describe_pretrained, open_pretrained
from atspeed_jax.models.weight_files import WeightsError
from bases import BASE, BOS, write_base
from configs import beauty_llama7b

ROOT = Path(__file__).parents[2]
LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "up_proj"))


@pytest.fixture
def base(tmp_path):
    return tmp_path / "base", write_base(tmp_path / "base")


def config_of(directory, lora=None, **more):
    return PretrainedConfig(str(directory), lora, **more)


def test_what_is_opened(base):
    directory, params = base
    whole = open_pretrained(config_of(directory, dropout=0.2, remat=True))
    assert whole.bos == BOS
    assert whole.lora is None
    assert whole.model == dataclasses.replace(BASE, dropout=0.2, remat=True)
    jax.tree.map(np.testing.assert_array_equal, whole.load(), params)
    narrow = open_pretrained(config_of(directory, LORA, dtype="bfloat16"))
    assert narrow.model == dataclasses.replace(BASE, dtype="bfloat16", adapter_dropout=0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.load())} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapter"])
def test_what_is_trained_begins_as_the_base_with_rows_for_the_codes(base, lora):
    directory, params = base
    opened = open_pretrained(config_of(directory, lora))
    trained = opened.init_trainable(jax.random.key(0), opened.load(), 5)
    assert set(trained) == ({"layers", "item_embedding", "item_head"} if lora else set(params))
    whole = opened.full_params(trained, opened.load())
    assert whole["embedding"].shape == (6 + 5, 16)
    assert whole["head"]["kernel"].shape == (16, 6 + 5)
    np.testing.assert_array_equal(whole["embedding"][:6], params["embedding"])
    np.testing.assert_array_equal(whole["head"]["kernel"][:, :6], params["head"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, whole["layers"], params["layers"])
    assert len({tuple(row) for row in np.asarray(whole["embedding"][6:]).tolist()}) == 5


def test_the_fingerprint_is_that_of_the_files_and_of_what_is_trained(base, tmp_path):
    directory, _ = base
    first = open_pretrained(config_of(directory)).fingerprint
    write_base(tmp_path / "elsewhere")
    assert open_pretrained(config_of(tmp_path / "elsewhere")).fingerprint == first
    write_base(tmp_path / "other", seed=1)
    others = {
        open_pretrained(config_of(tmp_path / "other")).fingerprint,
        open_pretrained(config_of(directory, LORA)).fingerprint,
        open_pretrained(config_of(directory, dropout=0.1)).fingerprint,
    }
    assert len(others | {first}) == 4


@pytest.mark.parametrize("bos", [6, -1, "x", [2]])
def test_a_base_needs_a_token_to_begin_with(tmp_path, bos):
    write_base(tmp_path / "base", bos_token_id=bos)
    with pytest.raises(HFConfigError, match=r"bos_token_id=.*expected a token in 0\.\.5.*such as bos=1"):
        open_pretrained(config_of(tmp_path / "base"))


@pytest.mark.parametrize(("eos", "bos"), [(3, 3), ([4, 1], 4)])
def test_without_bos_a_prompt_of_no_items_is_the_token_that_ends_texts(tmp_path, eos, bos):
    write_base(tmp_path / "base", bos_token_id=None, eos_token_id=eos)
    assert open_pretrained(config_of(tmp_path / "base")).bos == bos


def test_neither_bos_nor_eos(tmp_path):
    write_base(tmp_path / "base", bos_token_id=None, eos_token_id=None)
    with pytest.raises(HFConfigError, match="bos_token_id=None, expected"):
        open_pretrained(config_of(tmp_path / "base"))


def test_a_token_to_begin_with_can_be_given(tmp_path):
    write_base(tmp_path / "base")
    assert open_pretrained(config_of(tmp_path / "base", bos=1)).bos == 1
    prints = {open_pretrained(config_of(tmp_path / "base", bos=bos)).fingerprint for bos in (None, 1, 2)}
    assert len(prints) == 3
    assert "bos" not in repr(config_of(tmp_path / "base"))
    with pytest.raises(HFConfigError, match="bos_token_id=9, expected"):
        open_pretrained(config_of(tmp_path / "base", bos=9))


def test_the_tokens_of_a_vocabulary(base):
    """Known codes, with words in another order; new codes, whose rows are not loaded."""
    directory, params = base
    texts = (("<a_0>", "<a_1>"),)
    rows = np.array([0, 5, 2, 3, 1, 4])
    opened = open_pretrained(config_of(directory))
    known = opened.numbered(Vocabulary(rows, texts, trained=True))
    assert known.model == opened.model
    np.testing.assert_array_equal(known.load()["embedding"], params["embedding"][rows])
    new = opened.numbered(Vocabulary(rows, texts, trained=False))
    assert new.model.vocab_size == 4
    np.testing.assert_array_equal(new.load()["head"]["kernel"], params["head"]["kernel"][:, rows[:4]])
    assert opened.numbered(None) is opened


def test_the_named_pair_begins_with_the_same_token():
    config = beauty_llama7b.get_config()
    found = [
        describe_pretrained(PretrainedConfig(str(ROOT / m.directory), None, bos=m.bos))
        for m in (config.target, config.draft)
    ]
    assert [model.bos for model in found] == [1, 1]


def test_a_directory_that_is_not_whole(base):
    directory, _ = base
    (directory / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged or cut off"):
        open_pretrained(config_of(directory))
    with pytest.raises(HFConfigError, match="there is no"):
        open_pretrained(config_of(directory / "nothing"))
