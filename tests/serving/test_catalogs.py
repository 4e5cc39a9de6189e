"""One catalog for the models of a pair: tokens, BOS, text and padding of their tokenizer."""

import dataclasses

import pytest

from atspeed_jax.data.instructions import PromptConfig, PromptError
from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.items.placement import check_known
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.models.pretrained import PretrainedConfig, describe_pretrained
from atspeed_jax.serving.catalogs import catalog_for, check_positions
from bases import BASE, CATALOG, write_base
from hf import GOLDEN
from words import WORDS, words_tokenizer

TEXT = PromptConfig("instruction", "the user has {items} the", "?")
CODES = tuple(sorted(f"<{level}_{n}>" for level, sizes in zip("abc", (2, 4, 3), strict=True) for n in range(sizes)))


def model(directory, words=WORDS, known=(), rows=None, bos=None):
    """A model whose embedding has rows behind the tokens of its tokenizer."""
    write_base(directory, dataclasses.replace(BASE, vocab_size=rows or len(words) + len(known)), words=())
    tokenizer = words_tokenizer(words)
    tokenizer.add_tokens(list(known))
    tokenizer.save(str(directory / "tokenizer.json"))
    return describe_pretrained(PretrainedConfig(str(directory), None, bos=bos))


def read(catalog, items):
    """A prompt in the numbers of the tokenizer."""
    return catalog.vocabulary.rows[prompt_tokens(catalog, items, 5)].tolist()


def test_a_pair_of_one_tokenizer_with_different_padding(tmp_path):
    pair = model(tmp_path / "target", known=CODES, rows=30), model(tmp_path / "draft", known=CODES, rows=20)
    catalog = catalog_for(pair, CATALOG, TEXT)
    assert catalog.vocab_size == 30
    assert not catalog.begins
    check_known(catalog, tmp_path / "target")
    codes = [len(WORDS) + CODES.index(text) for text in ("<a_0>", "<b_2>", "<c_1>")]
    assert read(catalog, [0, 0]) == [3, 4, 5, *codes, 0, *codes, 3]
    assert read(catalog, []) == [3, 4, 5, 3]
    assert 0 not in prompt_tokens(catalog, [0, 0], 5)  # the separator is token 0 of the tokenizer
    draft = pair[1].numbered(catalog.vocabulary)
    assert draft.load()["embedding"].shape == (30, 16)


def test_items_alone_and_bos(tmp_path):
    plain = model(tmp_path / "plain", known=CODES)
    items = catalog_for([plain], CATALOG, PromptConfig())
    assert (items.instruction, items.begins) == (None, False)
    assert read(items, [0]) == [len(WORDS) + CODES.index(text) for text in ("<a_0>", "<b_2>", "<c_1>")]
    assert read(items, []) == [2]
    asked = dataclasses.replace(plain, config=dataclasses.replace(plain.config, bos=2))
    assert read(catalog_for([asked], CATALOG, PromptConfig()), [0])[0] == 2


def test_models_of_two_vocabularies(tmp_path):
    pair = model(tmp_path / "target", known=CODES), model(tmp_path / "draft", known=CODES[::-1])
    with pytest.raises(ValueError, match=r"must share one .*target has codes behind 7.*different tokens"):
        catalog_for(pair, CATALOG, PromptConfig())
    other = model(tmp_path / "other", words=(*WORDS, "more"), known=CODES)
    with pytest.raises(ValueError, match="take models of one tokenizer"):
        catalog_for((pair[0], other), CATALOG, PromptConfig())


def test_text_with_a_code_and_a_model_without_a_tokenizer(tmp_path):
    known = model(tmp_path / "known", known=CODES)
    with pytest.raises(PromptError, match="apart at the item codes"):
        catalog_for([known], CATALOG, PromptConfig("instruction", "the <a_1> {items}"))
    write_base(tmp_path / "bare", words=())
    bare = describe_pretrained(PretrainedConfig(str(tmp_path / "bare"), None))
    assert catalog_for([bare], CATALOG, PromptConfig()).begins
    with pytest.raises(PromptError, match="an instruction is text"):
        catalog_for([bare], CATALOG, TEXT)
    with pytest.raises(TokenizerError, match="there is no"):
        check_known(catalog_for([bare], CATALOG, PromptConfig()), tmp_path / "bare")


@pytest.mark.parametrize("kind", ["llama_biases", "mistral", "qwen2", "qwen3"])
def test_a_prompt_longer_than_the_positions_of_any_type_is_refused(kind):
    """BOS, the codes of 84 items of 3 codes and those of the next: 256 tokens are the most."""
    opened, catalog = describe_pretrained(PretrainedConfig(str(GOLDEN / kind), None, bos=1)), CATALOG.behind(38, 1)
    check_positions([opened], catalog, 84)
    with pytest.raises(ValueError, match=rf"history=85 .* has 259 tokens, but .*{kind} was made for 256"):
        check_positions([opened], catalog, 85)
