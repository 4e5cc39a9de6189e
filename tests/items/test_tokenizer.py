import dataclasses
import json

import numpy as np
import pytest

from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.tokenizer import (
    TokenizerError,
    code_texts,
    extended_settings,
    extended_tokenizer,
    item_tokenizer,
    read_settings,
)
from words import WORDS, words_tokenizer

CATALOG = Catalog.from_codes(np.array([[0, 2, 1], [1, 0, 0], [1, 3, 2]]))
TEXT = "<a_0><b_2><c_1><a_1><b_3><c_2>"


def saved(directory, words=WORDS):
    words_tokenizer(words).save(str(directory / "tokenizer.json"))
    return directory


def test_text_and_tokens():
    tokenizer = item_tokenizer(CATALOG)
    assert tokenizer.encode(TEXT).ids == prompt_tokens(CATALOG, [0, 2], 5).tolist()
    assert tokenizer.encode("").ids == prompt_tokens(CATALOG, [], 5).tolist()
    assert tokenizer.get_vocab_size() == CATALOG.vocab_size
    assert code_texts(CATALOG) == ["<a_0>", "<a_1>", *(f"<b_{n}>" for n in range(4)), "<c_0>", "<c_1>", "<c_2>"]
    with pytest.raises(Exception, match=r"UNK|unk"):
        tokenizer.encode("<a_7>")


def test_codes_are_written_as_the_catalog_spells_them():
    catalog = dataclasses.replace(CATALOG, spelling=("<s_a_{}>", "<s_b_{}>", "<C2_{}>"))
    assert code_texts(catalog)[:3] == ["<s_a_0>", "<s_a_1>", "<s_b_0>"]
    text = "<s_a_0><s_b_2><C2_1><s_a_1><s_b_3><C2_2>"
    assert item_tokenizer(catalog).encode(text).ids == item_tokenizer(CATALOG).encode(TEXT).ids
    assert catalog.behind(9, 2).spelling == catalog.spelling


def test_codes_alone_of_a_catalog_behind_a_vocabulary():
    catalog = CATALOG.behind(len(WORDS), 2)
    tokenizer = item_tokenizer(catalog)
    assert tokenizer.encode(TEXT).ids == prompt_tokens(catalog, [0, 2], 5).tolist()
    assert tokenizer.token_to_id("<s>") == 2


def test_codes_behind_a_pretrained_vocabulary(tmp_path):
    catalog = CATALOG.behind(len(WORDS), 2)
    tokenizer = extended_tokenizer(saved(tmp_path), catalog)
    assert tokenizer.encode("the user has " + TEXT).ids == [3, 4, 5, *prompt_tokens(catalog, [0, 2], 5).tolist()[1:]]
    assert prompt_tokens(catalog, [0], 5).tolist()[0] == 2
    assert tokenizer.get_vocab_size() == catalog.vocab_size


def test_no_tokenizer(tmp_path):
    assert extended_tokenizer(tmp_path, CATALOG) is None


def test_a_file_that_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        extended_tokenizer(tmp_path, CATALOG)


def test_settings_of_all_their_files(tmp_path):
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "cls_token": "<cls>", "x": 1}))
    given = {"bos_token": None, "cls_token": "<c>", "tokenizer_class": "LlamaTokenizer", "chat_template": "old"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given))
    assert read_settings(tmp_path) == {"x": 1} | given | {"bos_token": "<s>"}
    (tmp_path / "chat_template.jinja").write_text("new")
    kept = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "cls_token": "<c>"}
    assert extended_settings(tmp_path) == kept | {"chat_template": "new"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("other")
    both = [{"name": "default", "template": "new"}, {"name": "rag", "template": "other"}]
    assert extended_settings(tmp_path) == kept | {"chat_template": both}
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"a chat template of .* cannot be read: .*utf-8"):
        read_settings(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json holds a list, expected a JSON object"):
        read_settings(tmp_path)
